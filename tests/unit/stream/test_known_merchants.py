"""The reads of merchants' streams, answered by hand."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from sse_push.stream.known_merchants import KnownMerchants
from sse_push.stream.leftovers import Leftovers
from sse_push.stream.reading import Reading
from sse_push.stream.replies import ErrorReply, Refusals
from tests.harness.keys import KEYS
from tests.unit.stream.followed import Followed


class NothingBefore:
    """A planting that plants nothing."""

    def take(self, _most: int) -> list[object]:
        return []

    def before(self, _read: object) -> list[object]:
        return []


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_refused_read_is_remembered_for_as_long_as_somebody_listens(
    *, is_closed: bool
) -> None:
    tail, refusals = Followed().tail, Refusals()
    known = KnownMerchants(
        tail,
        cast("Any", NothingBefore()),
        Leftovers(),
        Reading(refusals, MagicMock(), None, lambda: None),
        KEYS,
        data_limit_bytes=1000,
    )
    tail.watch("42")
    ((_, on_reply),) = known.next_requests(1)
    if is_closed:
        tail.unwatch("42")

    on_reply(ErrorReply("BUSY a script runs"))

    assert bool(refusals) is not is_closed


async def test_a_stream_that_is_elsewhere_is_read_when_the_slots_are_known_again() -> None:
    tail, refusals = Followed().tail, Refusals()
    moving = MagicMock()
    moving.takes.return_value = False
    known = KnownMerchants(
        tail,
        cast("Any", NothingBefore()),
        Leftovers(),
        Reading(refusals, MagicMock(), moving, lambda: None),
        KEYS,
        data_limit_bytes=1000,
    )
    known.watch("42")
    ((_, on_reply),) = known.next_requests(1)

    on_reply(ErrorReply("CLUSTERDOWN Hash slot not served"))

    assert not refusals
    assert known.next_requests(1) == []
    known.read_refused()
    assert len(known.next_requests(1)) == 1
    assert not known.hand_over("42")
