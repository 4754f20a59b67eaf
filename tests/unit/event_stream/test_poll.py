from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation
from sse_push.errors import EndReason, NotNow, RefusalReason, Unauthorized
from sse_push.event_stream import Listening, poll
from sse_push.notification import EntryId
from tests.harness.ids import at
from tests.harness.waiting import SECOND
from tests.unit.event_stream.service import Neighbor, Serve, Service, entry, revoke, turns

GRANT = "0a1b2c3d4e5f6071"
CURRENT: dict[str, object] = {"merchants": {}, "grant": GRANT}


def told(number: int, reason: str, *topics: str | None) -> dict[str, object]:
    listed = None if None in topics else [*topics]
    owed = {"id": str(at(number)), "topics": listed, "reason": reason}
    return {"merchants": {"42": owed}, "grant": GRANT}


async def ask(
    service: Service,
    last_event_id: str | None = None,
    *,
    is_named: bool = False,
    expires_at: float | None = None,
) -> Any:
    async with asyncio.timeout(5 * SECOND):
        grants, positions = (Grant("42", expires_at),), (last_event_id,)
        return await poll(service.streams, Listening(grants, positions, is_named, GRANT))


def live(service: Service, newest: int | None = 7) -> Service:
    """Let another client listen to the merchant, whose stream has been read."""
    service.hub.subscribe(Grant("42"), Neighbor())
    service.armed(None if newest is None else at(newest))
    return service


@pytest.fixture
async def patient(serve: Serve) -> Service:
    """A service that waits for Redis for as long as any test takes."""
    return serve(clock=asyncio.get_running_loop(), arm_timeout_s=60 * SECOND)


def assert_nobody_is_left(service: Service, reason: EndReason = EndReason.POLLED) -> None:
    assert len(service.hub) == service.hub.merchant_count == 0
    assert service.hub.tally.closed[reason] == service.hub.tally.opened == 1
    assert service.source.calls == [("watch", "42"), ("unwatch", "42")]


# -- what is owed


@pytest.mark.parametrize(
    ("last_event_id", "answer"),
    [
        (str(at(7)), CURRENT),
        (None, told(7, "connected", None)),
        ("", told(7, "connected", None)),
        ("?", told(7, "missed", None)),
        (str(at(9)), told(7, "missed", None)),
        (str(at(7, history="ffffffff")), told(7, "missed", None)),
    ],
)
async def test_a_poll_of_a_live_merchant_is_answered_without_redis(
    service: Service, last_event_id: str | None, answer: dict[str, object]
) -> None:
    live(service)

    assert await ask(service, last_event_id) == answer
    assert service.shelf.asked == []
    assert service.source.calls == [("watch", "42")]  # by the other client


async def test_a_client_that_has_its_position_from_a_poll_is_current(patient: Service) -> None:
    live(patient)
    first = await ask(patient)

    assert await ask(patient, first["merchants"]["42"]["id"]) == CURRENT


async def test_a_stream_without_an_entry_has_no_position(service: Service) -> None:
    live(service, None)

    assert await ask(service) == {
        "merchants": {"42": {"id": None, "topics": None, "reason": "connected"}},
        "grant": GRANT,
    }


async def test_a_poll_is_told_all_topics_since_its_position_at_once(patient: Service) -> None:
    live(patient, 9)
    patient.shelf.entries = (entry(6, "seats"), entry(7, "prices"), entry(8, "seats"))

    assert await ask(patient, str(at(5))) == told(9, "missed", "prices", "seats")
    assert patient.shelf.asked == [("42", EntryId(5, 0), EntryId(9, 0))]


@pytest.mark.parametrize("entries", [None, (entry(6, "seats"), entry(7))])
async def test_a_poll_is_told_of_no_topic_if_not_all_are_known(
    patient: Service, entries: Any
) -> None:
    live(patient)
    patient.shelf.entries = entries

    assert await ask(patient, str(at(5))) == told(7, "missed", None)


async def test_entries_that_say_nothing_are_not_owed(patient: Service) -> None:
    live(patient)
    patient.shelf.entries = ()

    assert await ask(patient, str(at(5))) == CURRENT


async def test_an_id_names_its_merchant_where_those_of_an_event_stream_do(service: Service) -> None:
    answer = await ask(live(service), is_named=True)

    assert answer["merchants"]["42"]["id"] == f"42@{at(7)}"


async def test_a_change_while_the_stream_is_asked_is_left_to_the_next_poll(
    patient: Service,
) -> None:
    live(patient)
    patient.shelf.entries = (entry(6, "prices"),)
    patient.shelf.is_open.clear()
    asking = asyncio.create_task(ask(patient, str(at(5))))
    await turns()

    patient.change(8)
    patient.shelf.is_open.set()

    assert await asking == told(7, "missed", "prices")


# -- the place of a poll


async def test_a_poll_of_another_merchant_waits_until_its_stream_is_read(patient: Service) -> None:
    asking = asyncio.create_task(ask(patient, str(at(7))))
    await turns()
    assert patient.source.calls == [("watch", "42")]

    patient.armed(at(7))

    assert await asking == CURRENT
    assert_nobody_is_left(patient)


@pytest.mark.parametrize("is_live", [False, True])
async def test_a_poll_is_put_off_if_redis_does_not_answer(
    service: Service, *, is_live: bool
) -> None:
    service.shelf.is_open.clear()
    if is_live:
        live(service)

    with pytest.raises(NotNow) as caught:
        await ask(service, str(at(5)))

    assert (caught.value.reason, caught.value.who) == (EndReason.NOT_READY, "merchant 42")
    assert len(service.hub) == is_live
    if not is_live:
        assert_nobody_is_left(service)


async def test_a_poll_whose_client_is_given_up_leaves_nothing_behind(patient: Service) -> None:
    asking = asyncio.create_task(ask(patient))
    await turns()

    asking.cancel()
    await asyncio.wait([asking])

    assert_nobody_is_left(patient)


async def test_a_poll_that_fails_leaves_nothing_behind(patient: Service) -> None:
    patient.shelf.error = OSError("no archive")
    asking = asyncio.create_task(ask(patient, str(at(5))))
    await turns()

    patient.armed(at(7))

    with pytest.raises(OSError, match="no archive"):
        await asking
    assert_nobody_is_left(patient)


async def test_a_poll_takes_no_frame(serve: Serve) -> None:
    service = serve(arm_timeout_s=60 * SECOND)
    asking = asyncio.create_task(ask(service, str(at(7)), expires_at=time.time() + 65))
    await turns()

    # Past heartbeats, the announcement of the token's end, and the end of a client that stalls.
    service.clock.advance(50)
    service.armed(at(7))

    assert await asking == CURRENT


# -- the end of its right


async def test_a_poll_with_a_token_that_was_revoked_is_refused(service: Service) -> None:
    live(service)
    revoke(service)

    with pytest.raises(Unauthorized) as caught:
        await ask(service, expires_at=time.time() + 60)

    assert caught.value.reason is RefusalReason.TOKEN_REVOKED


async def test_a_poll_whose_token_is_revoked_meanwhile_is_refused(patient: Service) -> None:
    asking = asyncio.create_task(ask(patient, expires_at=time.time() + 60))
    await turns()

    revoke(patient)

    with pytest.raises(Unauthorized) as caught:
        await asking
    assert caught.value.reason is RefusalReason.TOKEN_REVOKED
    assert_nobody_is_left(patient, EndReason.REVOKED)


async def test_a_poll_whose_token_expires_meanwhile_is_refused(serve: Serve) -> None:
    service = serve(arm_timeout_s=60 * SECOND)
    asking = asyncio.create_task(ask(service, expires_at=time.time() + 5))
    await turns()

    service.clock.advance(6)

    with pytest.raises(Unauthorized) as caught:
        await asking
    assert caught.value.reason is RefusalReason.TOKEN_EXPIRED
    assert caught.value.challenge == 'Bearer error="invalid_token"'
    assert_nobody_is_left(service, EndReason.TOKEN_EXPIRED)


@pytest.mark.parametrize(
    ("end", "told_as"),
    [
        (EndReason.SERVER_STOPPING, EndReason.SERVER_STOPPING),
        (EndReason.REVOKED, EndReason.NOT_READY),  # of a merchant without tokens: it may return
    ],
)
async def test_a_poll_whose_place_is_taken_away_is_put_off(
    patient: Service, end: EndReason, told_as: EndReason
) -> None:
    asking = asyncio.create_task(ask(patient))
    await turns()

    patient.end(end)

    with pytest.raises(NotNow) as caught:
        await asking
    assert caught.value.reason is told_as
    assert_nobody_is_left(patient, end)


async def test_a_poll_that_is_ended_while_the_stream_is_asked_is_not_answered(
    patient: Service,
) -> None:
    live(patient)
    patient.shelf.is_open.clear()
    asking = asyncio.create_task(ask(patient, str(at(5))))
    await turns()

    patient.end(EndReason.SERVER_STOPPING)
    patient.shelf.is_open.set()

    with pytest.raises(NotNow):
        await asking


# -- several merchants


async def ask_for_all(service: Service, **positions: int | None) -> Any:
    """Poll for merchants whose names begin with a letter here."""
    grants = tuple(Grant(name[1:]) for name in positions)
    texts = tuple(None if number is None else str(at(number)) for number in positions.values())
    async with asyncio.timeout(5 * SECOND):
        return await poll(service.streams, Listening(grants, texts, is_named=True, digest=GRANT))


async def test_a_poll_is_told_what_each_of_its_merchants_owes(patient: Service) -> None:
    live(patient)
    patient.shelf.entries = (entry(6, "seats"),)
    asking = asyncio.create_task(ask_for_all(patient, m42=7, m43=5, m44=None))
    await turns()
    for merchant_id in ("43", "44"):
        patient.armed(at(7), merchant_id)

    answer = await asking

    assert answer == {
        "merchants": {
            "43": {"id": f"43@{at(7)}", "topics": ["seats"], "reason": "missed"},
            "44": {"id": f"44@{at(7)}", "topics": None, "reason": "connected"},
        },
        "grant": GRANT,
    }
    assert len(patient.hub) == 1
    assert patient.hub.tally.closed[EndReason.POLLED] == 1


async def test_a_poll_is_put_off_if_redis_does_not_answer_for_one_merchant(
    service: Service,
) -> None:
    live(service)

    with pytest.raises(NotNow) as caught:
        await ask_for_all(service, m42=7, m43=7)

    assert (caught.value.reason, caught.value.who) == (EndReason.NOT_READY, "merchant 43")
    assert len(service.hub) == service.hub.merchant_count == 1


async def test_a_poll_that_fails_for_one_merchant_fails_at_once(patient: Service) -> None:
    live(patient)
    before = asyncio.all_tasks()
    patient.shelf.error = OSError("no archive")

    with pytest.raises(OSError, match="no archive"):
        await ask_for_all(patient, m42=5, m43=7)

    assert len(patient.hub) == 1
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("revoked", ["42", "43"])
async def test_a_poll_is_refused_if_one_merchant_is_revoked_meanwhile(
    patient: Service, revoked: str
) -> None:
    grants = tuple(Grant(each, time.time() + 60) for each in ("42", "43"))
    listening = Listening(grants, (None, None), is_named=True, digest=GRANT)
    asking = asyncio.create_task(poll(patient.streams, listening))
    await turns()

    patient.hub.revoke(Revocation(revoked), time.time())

    with pytest.raises(Unauthorized):
        await asking
    assert len(patient.hub) == patient.hub.merchant_count == 0
