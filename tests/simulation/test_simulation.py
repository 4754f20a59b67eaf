"""No browser is left behind, in any order of events; and each rule is there because one would be.

Each mutant below takes one rule out, in the way in which the rule is easily forgotten. A mutant
that the simulation does not find would mean that its rule is not needed, or can't be tested so.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, cast

import pytest

from sse_push.errors import EndReason
from sse_push.event_stream import comparison, opening, resume, transport
from sse_push.event_stream.opening import Opening
from sse_push.event_stream.transport import DRAINING, FINISHING, OPEN, TransportStream
from sse_push.event_stream.wire import Frame
from sse_push.hub import Hub, Refresh, State, Subscription, fan_out, frames
from sse_push.hub import hub as register
from sse_push.hub import state as hub_state
from sse_push.hub.fan_out import FanOuts
from sse_push.hub.heartbeats import Heartbeats
from sse_push.hub.state import FanOut, Merchant
from sse_push.notification import Change, Entry, EventId
from sse_push.stream import histories, schedule
from sse_push.stream import watch as stream_watch
from sse_push.stream.reads import Held, Read
from sse_push.stream.schedule import Schedule
from sse_push.stream.tail import Tail
from sse_push.stream.watch import Position, Watch
from tests.simulation import model
from tests.simulation.browsers import ModelCycle
from tests.simulation.forgotten import (
    also_without_a_name,
    always_one,
    blocks_one_place_only,
    drains_the_leader_only,
    gives_a_missing_stream_an_id,
    in_any_order,
    keeps_the_newest_by,
    keeps_the_newest_data,
    of_any_merchant,
    takes_what_is_left_for_all,
    tells_no_position,
    tells_the_id_before_the_refresh,
)
from tests.simulation.model import ARMED, REFUSED, TOO_LARGE, ModelFollower
from tests.simulation.simulation import Simulation, stream_of
from tests.simulation.transitions import Notebook, Transition, permit_all

RUNS = int(os.environ.get("SSE_PUSH_TEST_RUNS", "10000"))
RUNS_OF_A_MUTANT = 10_000
RUNS_FOR_TRANSITIONS = 1000
ACTIONS = 100

MACHINES = (hub_state, transport, schedule, stream_watch)
"""The modules with a table of transitions that a run goes through."""

Build = Callable[[int], Simulation]
Finds = Callable[[Build], bool]


class Failure(NamedTuple):
    seed: int
    text: str


async def first_failure(build: Build, seeds: Iterable[int]) -> Failure | None:
    for seed in seeds:
        simulation = build(seed)
        try:
            await simulation.run(ACTIONS)
        except AssertionError as exc:
            return Failure(seed, f"{exc}; {' '.join(simulation.history)}")
        finally:
            await simulation.close()
    return None


class Histories(NamedTuple):
    failure: Failure | None
    not_made: set[Transition]
    """The transitions that no history has made."""


@pytest.fixture(scope="module")
def all_histories() -> Histories:
    with pytest.MonkeyPatch.context() as monkeypatch:
        notebook = Notebook(monkeypatch, *MACHINES)
        seeds = range(max(RUNS, RUNS_FOR_TRANSITIONS))
        failure = asyncio.run(first_failure(Simulation, seeds))
    return Histories(failure, notebook.not_made)


def test_no_browser_is_left_behind(all_histories: Histories) -> None:
    assert all_histories.failure is None


EXEMPT = {
    # A browser that leaves, or takes bytes again, while it is blocked and its stream unread: a few
    # histories of 5 000 have either. tests/unit/hub/test_state.py makes these transitions.
    (State.JOINING_BLOCKED, State.ENDED),
    (State.JOINING_BLOCKED, State.JOINING),
    # A connection is cut when its client takes no bytes for ``send_timeout_s``, which is longer
    # than a history, or when a task fails. tests/unit/event_stream/test_transport.py does all that.
    *((state, transport.CUT) for state in transport.State),
    # A slot has moved: test_cluster makes this transition.
    (Position.UNREAD, Position.BEHIND),
}
"""Transitions that the histories need not make."""


def test_every_transition_of_a_table_is_made_in_some_history(all_histories: Histories) -> None:
    assert all_histories.not_made <= EXEMPT


FOUND_BY = {
    "ComparesIdsOnly": 385,
    "BelievesThatNothingCame": 2205,
    "ReadsOnlyOnce": 270,
    "TrustsTheFirstEntries": 103,
    "TrustsAnotherServer": 489,
    "LetsPlantsAppearInSilence": 209,
    "ArmsBeforePlanting": 209,
    "RefusalsTakeTheCause": 2424,
    "ReadsAsideWithoutArming": 327,
    "SwallowsItsOwnAnnouncement": 246,
    "TakesALargeReplyForNone": 327,
    "ComparesWithTheLastWritten": 1767,
    "EndsAfterItsLastChunk": 927,
    "FansOutAtOnce-TransportStream": 517,
    "RecipientsMayChange-TransportStream": 931,
    "WritesToTheJoining-TransportStream": 1269,
    "Refresh-merged_with-keeps_the_newest_by": 291,
    "sse_push.event_stream.resume-position_of-of_any_merchant": 447,
    "sse_push.event_stream.opening-_standing-tells_the_id_before_the_refresh": 896,
    "sse_push.event_stream.resume-is_one_history-always_one": 1617,
    "sse_push.event_stream.resume-is_one_history-also_without_a_name": 3108,
    "sse_push.stream.histories-is_one_history-also_without_a_name": 489,
}
"""A history that finds a mutant, where it is not among the first. It is tried first; if it is out
of date, the test takes longer. ``pytest -k rule -s`` prints what finds each."""


def is_found(name: str, build: Build, found_by: Mapping[str, int]) -> bool:
    """Tell whether a history finds a mutant, among as many as are run without one."""
    first = [found_by[name]] if name in found_by else []
    failure = asyncio.run(first_failure(build, chain(first, range(RUNS_OF_A_MUTANT))))
    if failure is not None:
        sys.stdout.write(f'    "{name}": {failure.seed},\n')
    return failure is not None


def with_each(simulation: Callable[..., Simulation], **mutants: Sequence[type]) -> dict[str, Build]:
    """Return how a simulation is built with each mutant, by name; each stands for one part."""
    return {
        mutant.__name__: partial(simulation, **{part: mutant})
        for part, all_of_it in mutants.items()
        for mutant in all_of_it
    }


@pytest.fixture
def finds(request: pytest.FixtureRequest) -> Finds:
    return partial(is_found, request.node.callspec.id, found_by=FOUND_BY)


@pytest.fixture
def without_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a mutant found by what becomes of a browser, and not by a transition that is illegal."""
    permit_all(monkeypatch, *MACHINES)


# -- the tail's rules


class ReadsAfterWhatItHolds(Tail):
    """Continuity: an answer is taken for what followed, whatever it begins with."""

    def _is_continuous(self, held: Held, entries: list[Entry]) -> bool:
        if not entries or entries[0].id != held.id:
            entries.insert(0, Entry(held.id, entries[0].notification)) if entries else None
        return True

    def _continued(self, watch: Watch, held: Held, entries: list[Entry]) -> None:
        if entries or not self._is_continuous(held, entries):
            super()._continued(watch, held, entries)


class ComparesIdsOnly(Tail):
    """Continuity: an entry with the ID held is taken for the entry held, whatever is in it."""

    def _is_continuous(self, held: Held, entries: list[Entry]) -> bool:
        return bool(entries) and entries[0].id == held.id


class BelievesThatNothingCame(Tail):
    """A read with a cause: if it finds nothing, the announcement is ignored."""

    def _appeared(self, watch: Watch, entries: list[Entry]) -> None:
        watch.read_has_cause = False
        super()._appeared(watch, entries)


class ClearsTheMarkAfterTheRead(Tail):
    """The dirty mark: an announcement while a read is under way is lost."""

    def answered(self, watch: Watch, entries: list[Entry]) -> None:
        if watch.schedule is Schedule.READING_DIRTY:
            watch.schedule = Schedule.READING
        super().answered(watch, entries)


class ReadsOnlyOnce(Tail):
    """Bounded and complete: entries that a full answer leaves behind are not read."""

    def _is_cut_short(self, entries: list[Entry]) -> bool:  # noqa: ARG002
        return False


class TrustsTheFirstEntries(Tail):
    """The first entries of an empty stream: the newest one is published as if it were alone."""

    def _appeared(self, watch: Watch, entries: list[Entry]) -> None:
        if entries:
            watch.hold(Held.of(entries[-1]))
            self._on_change(Change(watch.merchant_id, entries[-1].id, tuple(entries)))
        else:
            super()._appeared(watch, entries)


class TrustsAnotherServer(Tail):
    """Another server: one that was restarted, or promoted, is taken for the one before."""

    def connected(self, *, has_history: bool) -> None:  # noqa: ARG002
        super().connected(has_history=True)


class RefusalsAreAnswers(Tail):
    """A refused read: taken for one that found nothing new, and has armed the key."""

    def refused(self, watch: Watch) -> None:
        super().refused(watch)
        if watch.position is not Position.CLOSED:
            del self.turns._refused[watch]
            watch.schedule = Schedule.IDLE


class LateReadsAreNone(Tail):
    """An announcement after many in vain: it is taken for one more of them."""

    def announced(self, merchant_id: str | None) -> None:
        super().announced(merchant_id)
        for watch in self.turns._late:
            watch.schedule = Schedule.IDLE
        self.turns._late.clear()


class RefusalsTakeTheCause(Tail):
    """A refused read: the next one has no cause, and is satisfied by nothing."""

    def refused(self, watch: Watch) -> None:
        super().refused(watch)
        watch.next_has_cause = False


class TakesUpPlantsInSilence(Tail):
    """Continuity: a planted entry says nothing, although its stream is taken up anew."""

    is_silent = False

    def answered(self, watch: Watch, entries: list[Entry]) -> None:
        self.is_silent = bool(entries) and all(entry.is_planted for entry in entries)
        super().answered(watch, entries)


class LetsPlantsAppearInSilence(TakesUpPlantsInSilence):
    """The first entries of a stream that was missing say nothing if they are planted."""

    def _appeared(self, watch: Watch, entries: list[Entry]) -> None:
        if self.is_silent:
            watch.hold(Held.of(entries[-1]))
            self._on_change(Change(watch.merchant_id, entries[-1].id, ()))
        else:
            super()._appeared(watch, entries)


class ArmsBeforePlanting(LetsPlantsAppearInSilence):
    """A stream that is missing is armed, and its planted entry comes as its first change."""

    def _wait_for_plant(self, watch: Watch) -> None:
        if watch.position is Position.UNREAD:
            self._armed(watch, None)
        if watch.merchant_id in self._watches:
            super()._wait_for_plant(watch)


class AdoptsPlantsInSilence(TakesUpPlantsInSilence):
    """History is lost, and the planted entry that is there instead says nothing."""

    def _caught_up(self, watch: Watch, entries: list[Entry]) -> None:
        if self.is_silent:
            watch.hold(Held.of(entries[-1]))
            self._on_change(Change(watch.merchant_id, entries[-1].id, ()))
        else:
            super()._caught_up(watch, entries)


class TakesTheUnknownForNothing(Hub[Frame]):
    """A position-only change is a value of its own: entries that are not known are many."""

    def publish(self, change: Change, history: str) -> None:
        super().publish(change._replace(entries=change.entries or ()), history)


class ReadsWithoutArming(ModelFollower):
    """The tracked connection: now and then a read goes over another one."""

    reads = 0

    def execute(self, read: Read) -> list[Entry] | object | None:
        self.reads += 1
        return self.redis.answer(read, arms=self.reads % 5 != 0)


class SwallowsItsOwnAnnouncement(ModelFollower):
    """A key that is to be forgotten: its next announcement is taken for the one of that."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.forgotten: set[str] = set()

    def serve_one(self) -> None:
        self.forgotten |= {read.merchant_id for read, for_whom in self.sent if for_whom is None}
        super().serve_one()

    def announced(self, merchant_id: str | None) -> None:
        if merchant_id in self.forgotten:
            self.forgotten.remove(merchant_id)
        else:
            super().announced(merchant_id)


class ReadsAsideWithoutArming(ModelFollower):
    """A stream that is read apart: it is not armed."""

    def arm(self, read: Read) -> object | None:
        answer = self.redis.answer(read, arms=False)
        return answer if answer is REFUSED or answer is None else ARMED


class TakesALargeReplyForNone(ModelFollower):
    """An answer that is too large: taken for one that found nothing new."""

    def reply(self, watch: Watch, value: object) -> None:
        if value is TOO_LARGE and watch.position is Position.HOLDS:
            if watch.finish_read(is_whole=True):
                self.tail.turns._queue[watch] = None
        else:
            super().reply(watch, value)


class OneErrorFailsAll(ModelFollower):
    """One bad stream: its error is the answer of all streams that are read, and armed, with it."""

    def process(self, watch: Watch, entries: list[Entry] | None) -> None:
        is_bad = any(stream.is_other_type for stream in self.redis.streams.values())
        if is_bad and watch.position is not Position.UNREAD and entries is not None:
            if watch.finish_read(is_whole=True):
                self.tail.turns._queue[watch] = None
        else:
            super().process(watch, entries)


# -- the hub's rules


class FansOutAtOnce(FanOuts[Frame]):
    """At most one fan-out per merchant: a second one overtakes the first."""

    def _schedule(self, merchant: Merchant[Frame], delay_s: float = 0.0) -> None:
        merchant.fan_out = None
        merchant.next_fan_out_at = 0
        super()._schedule(merchant, delay_s)


class RecipientsMayChange(FanOuts[Frame]):
    """Recipients are fixed: a connection that has moved up in the list is skipped."""

    def _write_some(self, fan_out: FanOut[Frame]) -> None:
        fan_out.recipients = tuple(fan_out.merchant.subscriptions)
        super()._write_some(fan_out)


class ComparesWithTheLastWritten(Hub[Frame]):
    """A joining browser is compared with the ID last written, while a newer one has been read."""

    def settle(self, subscription: Subscription[Frame]) -> EventId | None:
        newest = super().settle(subscription)
        waiting = subscription.merchant.pending.values()
        return min((each.id for each in waiting if each.id is not None), default=newest)


class WritesToAll(FanOuts[Frame]):
    """Writes to connections that are in another state as if they were flowing."""

    instead_of: State

    def _write_some(self, fan_out: FanOut[Frame]) -> None:
        others = [each for each in fan_out.recipients if each.state is self.instead_of]
        for subscription in others:
            subscription.state, subscription.is_flowing = State.FLOWING, True
        super()._write_some(fan_out)
        for subscription in others:
            if subscription.state is State.FLOWING:
                subscription.state, subscription.is_flowing = self.instead_of, False


class WritesToTheBlocked(WritesToAll):
    """All frames pass the slot: a new one is written while older ones are pending."""

    instead_of = State.BLOCKED


class WritesToTheJoining(WritesToAll):
    """All frames pass the slot: a new one is written before the refresh that was missed."""

    instead_of = State.JOINING


class CountsOnlyTheAdmitted(Hub[Frame]):
    """A subscription counts at once: here a merchant is dropped while its stream is being armed."""

    def unsubscribe(self, subscription: Subscription[Frame]) -> bool:
        merchant = subscription.merchant
        others = [each for each in merchant.subscriptions if each is not subscription]
        are_joining = all(each.state is State.JOINING for each in others)
        if subscription.state is not State.ENDED and others and are_joining:
            for other in others:
                super().unsubscribe(other)
        return super().unsubscribe(subscription)


# -- the connection's rules


class WritesIntoAClosedFlow(TransportStream):
    """The transport is written to while a send of the response waits."""

    def offer(self, frame: Frame) -> bool:
        if self.state in (DRAINING, FINISHING) and not self._cycle.disconnected:
            cast("ModelCycle", self._cycle).put(frame.chunk)
            return True
        return super().offer(frame)


class EndsAfterItsLastChunk(Hub[Frame]):
    """The transport: the subscription ends only after the last chunk."""

    def end(self, subscription: Subscription[Frame], reason: EndReason) -> None:
        if subscription.state is not State.ENDED:
            subscription.sink.end(reason)
            stream = stream_of(subscription)
            stream.state = OPEN  # and unsubscribes when its task ends


MUTANTS = with_each(
    Simulation,
    tail=[
        ReadsAfterWhatItHolds,
        ComparesIdsOnly,
        BelievesThatNothingCame,
        ClearsTheMarkAfterTheRead,
        ReadsOnlyOnce,
        TrustsTheFirstEntries,
        TrustsAnotherServer,
        LetsPlantsAppearInSilence,
        ArmsBeforePlanting,
        AdoptsPlantsInSilence,
        RefusalsAreAnswers,
        RefusalsTakeTheCause,
        LateReadsAreNone,
    ],
    follower=[
        ReadsWithoutArming,
        OneErrorFailsAll,
        ReadsAsideWithoutArming,
        SwallowsItsOwnAnnouncement,
        TakesALargeReplyForNone,
    ],
    hub=[
        TakesTheUnknownForNothing,
        ComparesWithTheLastWritten,
        CountsOnlyTheAdmitted,
        EndsAfterItsLastChunk,
    ],
)


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_taken_out_leaves_a_browser_behind(name: str, finds: Finds) -> None:
    assert finds(MUTANTS[name])


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize(
    ("mutant", "stream"),
    [
        (FansOutAtOnce, TransportStream),
        (RecipientsMayChange, TransportStream),
        (WritesToTheJoining, TransportStream),
        # Hub and connection both see to it; only without both does a frame overtake another.
        (WritesToTheBlocked, WritesIntoAClosedFlow),
    ],
)
def test_a_rule_of_the_fan_out_that_is_taken_out_leaves_a_browser_behind(
    monkeypatch: pytest.MonkeyPatch,
    finds: Finds,
    mutant: type[FanOuts[Frame]],
    stream: type[TransportStream],
) -> None:
    monkeypatch.setattr(register, "FanOuts", mutant)

    assert finds(partial(Simulation, stream=stream))


# -- rules that are functions


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (Refresh, "merged_with", keeps_the_newest_data),
        (Refresh, "merged_with", keeps_the_newest_by),
        (fan_out, "in_order", in_any_order),
        (frames, "in_order", in_any_order),
        (resume, "position_of", of_any_merchant),
        (opening, "_standing", tells_the_id_before_the_refresh),
        (Opening, "_tell", tells_no_position),
        (Heartbeats, "block", blocks_one_place_only),
        (Hub, "drained", drains_the_leader_only),
        (comparison, "owed", gives_a_missing_stream_an_id),
        (model, "entries_between", takes_what_is_left_for_all),
        (resume, "is_one_history", always_one),
        (resume, "is_one_history", also_without_a_name),
        (histories, "is_one_history", also_without_a_name),
    ],
)
def test_a_rule_that_is_forgotten_leaves_a_browser_behind(
    monkeypatch: pytest.MonkeyPatch, finds: Finds, owner: object, name: str, mutant: object
) -> None:
    monkeypatch.setattr(owner, name, mutant)

    assert finds(Simulation)
