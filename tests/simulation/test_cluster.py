"""No browser is left behind while slots move and primaries fail; and each rule is needed for it.

The rules are those of ``stream.slots``, ``stream.survey``, ``stream.cluster`` and
``stream.moving``. Each mutant takes one out.
"""

from __future__ import annotations

import asyncio

import pytest

from sse_push.stream import watch
from sse_push.stream.slots import SlotMap, merged
from sse_push.stream.standing import StreamName
from sse_push.stream.watch import Position
from tests.simulation.cluster import (
    ClusterSimulation,
    ModelCluster,
    ModelMoving,
    NodeFollower,
    View,
)
from tests.simulation.test_simulation import RUNS, first_failure, is_found, with_each
from tests.simulation.transitions import Notebook

RUNS_ON_A_CLUSTER = max(300, RUNS // 5)
"""Fewer than on one server: the tail and all that comes after it are the same."""


def test_no_browser_is_left_behind_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch, watch)

    assert asyncio.run(first_failure(ClusterSimulation, range(RUNS_ON_A_CLUSTER))) is None
    assert (Position.UNREAD, Position.BEHIND) in notebook.made, "a merchant is taken over"


# -- who has a slot


class AsksOnePrimary(ModelCluster):
    """All primaries are asked: the first one that answers may be cut off from the others."""

    def merged(self, views: list[View]) -> SlotMap:
        return super().merged(views[:1])


class AsksPrimariesOnly(ModelCluster):
    """If a primary is silent, its replica may know why: only the primaries are asked."""

    def ask_others(self) -> None:
        if not self.members:
            super().ask_others()


class AsksOthersIfNobodyAnswers(ModelCluster):
    """If a primary is silent, another one that answers may be cut off: that one is believed."""

    def ask_others(self) -> None:
        if not self.views:
            super().ask_others()


class BelievesTheOldest(ModelCluster):
    """The newest claim: the oldest one counts."""

    def merged(self, views: list[View]) -> SlotMap:
        return merged([node._replace(epoch=-node.epoch) for node in view] for view in views)


class BelievesHearsay(ModelCluster):
    """What a node claims itself counts first: what others say of it counts as much."""

    def merged(self, views: list[View]) -> SlotMap:
        return merged([node._replace(is_own=False) for node in view] for view in views)


class AsksOnlyInDoubt(ModelCluster):
    """The owners are asked again and again: they are asked only after a reply that disagrees."""

    def survey(self, most: int = 99) -> None:
        if self.is_doubted or self.is_asking or not self.members:
            super().survey(most)


# -- what follows


class TakesNothingOver(NodeFollower):
    """Another owner is another history: a merchant that moves is read as if it were new."""

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:  # noqa: ARG002
        super().watch(merchant_id)


class LeavesMissingStreams(ModelCluster):
    """A merchant without a stream moves too: it stays where it was missing."""

    def owner_of(self, merchant_id: str) -> NodeFollower | None:
        home = self.homes[merchant_id]
        if home in self.members.values() and home is not None:
            followed = home.tail._watches.get(merchant_id)
            if followed is not None and followed.held is None:
                return home
        return super().owner_of(merchant_id)


class PutsOffForEver(NodeFollower):
    """What was put off as its stream was elsewhere is read when the slots are known again."""

    def read_refused(self) -> None:
        pass


# -- streams on their way


class TakesAskForArmed(ModelMoving):
    """A read that is answered ASK arms nothing: the stream is not read again."""

    def look_again(self) -> None:
        pass

    def expect(self, stream: StreamName) -> None:
        pass


class ExpectsNothing(ModelMoving):
    """A missing stream of a slot on its way is expected to move: nothing announces that."""

    def expect(self, stream: StreamName) -> None:
        pass


class TakesAskForArmedFollower(NodeFollower):
    moving_type = TakesAskForArmed


class ExpectsNothingFollower(NodeFollower):
    moving_type = ExpectsNothing


class TakesTheOwnerBack(NodeFollower):
    """What the other node was given is out of sight once the move is given up."""

    def doubt(self, merchant_id: str) -> None:
        pass


FOUND_BY = {
    "AsksPrimariesOnly": 575,
    "AsksOthersIfNobodyAnswers": 2474,
    "BelievesHearsay": 617,
    "PutsOffForEver": 137,
    "ExpectsNothingFollower": 702,
}
"""A history that finds a mutant, where it is not among the first."""

MUTANTS = with_each(
    ClusterSimulation,
    cluster=[
        AsksOnePrimary,
        AsksPrimariesOnly,
        AsksOthersIfNobodyAnswers,
        BelievesTheOldest,
        BelievesHearsay,
        AsksOnlyInDoubt,
        LeavesMissingStreams,
    ],
    follower=[
        TakesNothingOver,
        PutsOffForEver,
        TakesAskForArmedFollower,
        ExpectsNothingFollower,
        TakesTheOwnerBack,
    ],
)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_of_the_cluster_that_is_taken_out_leaves_a_browser_behind(name: str) -> None:
    assert is_found(name, MUTANTS[name], FOUND_BY)
