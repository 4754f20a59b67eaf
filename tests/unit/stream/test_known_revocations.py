"""The stream of revocations of a cluster, which comes to a primary, and goes."""

from __future__ import annotations

from typing import cast
from unittest.mock import MagicMock

from sse_push.stream.aside import Aside
from sse_push.stream.known_revocations import KnownRevocations
from sse_push.stream.moving import Moving
from sse_push.stream.pipeline import Request
from sse_push.stream.reading import Reading
from sse_push.stream.replies import ErrorReply, Refusals
from sse_push.stream.revocations import Knowledge, RevocationTail
from sse_push.stream.schedule import Schedule


class OwnersReplies:
    """What takes the replies of other nodes; there are none here."""

    def takes(self, *_words: object) -> bool:
        return False


def known_to(tail: RevocationTail) -> KnownRevocations:
    aside = cast("Aside", MagicMock())
    aside.standings.records = {}
    moving = cast("Moving", OwnersReplies())
    return KnownRevocations(tail, Reading(Refusals(), aside, moving, lambda: None), "revocations")


def tail_of_nothing() -> RevocationTail:
    return RevocationTail(lambda _revocation, _at: None, lambda _until: None)


def request_of(known: KnownRevocations) -> Request:
    request = known.next_request()
    assert request is not None
    return request


def test_a_primary_that_does_not_have_the_stream_reads_nothing() -> None:
    known = known_to(tail_of_nothing())

    known.connected()

    assert not known.mark()
    assert known.next_request() is None
    assert not known.is_complete


def test_whoever_has_the_stream_reads_on_where_the_one_before_has_ended() -> None:
    tail = tail_of_nothing()
    one, two = known_to(tail), known_to(tail)
    one.arrive()
    _, on_reply = request_of(one)
    on_reply([[b"7-0", [b"merchant_id", b"42"]]])
    assert one.is_complete

    one.leave()
    two.arrive()

    assert not one.is_complete
    assert not one.mark()
    assert two.mark()
    (_, _, start, *_), on_reply = request_of(two)
    assert start == "7-0"
    on_reply([[b"7-0", [b"merchant_id", b"42"]]])
    assert two.is_complete


def test_a_reply_for_a_stay_before_is_ignored() -> None:
    tail = tail_of_nothing()
    known = known_to(tail)
    known.arrive()
    _, late = request_of(known)
    known.leave()
    known.arrive()

    late([])

    assert tail.schedule is Schedule.QUEUED
    assert tail.knowledge is Knowledge.UNREAD
    assert not known.is_complete


def test_a_stream_that_is_elsewhere_is_not_known_and_that_is_nobodys_fault() -> None:
    tail = tail_of_nothing()
    known = known_to(tail)
    known.arrive()
    _, on_reply = request_of(known)

    on_reply(ErrorReply("MOVED 7 h:1"))

    assert tail.knowledge is Knowledge.UNREADABLE
    assert not known.is_complete
    assert not known._refusals
