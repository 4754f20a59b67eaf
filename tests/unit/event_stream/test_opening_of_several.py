"""An event stream of several merchants: how each stands in ``ready``, and what follows."""

from __future__ import annotations

import asyncio
import time

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import EndReason, Unauthorized
from tests.harness.ids import at
from tests.harness.waiting import SECOND
from tests.unit.event_stream.service import (
    BEAT,
    Browser,
    Cycle,
    Neighbor,
    Serve,
    Server,
    Service,
    entry,
    goodbye,
    listening_to,
    turns,
)


def ready(**standings: str) -> bytes:
    merchants = ",".join(f'"{name[1:]}":{{{each}}}' for name, each in standings.items())
    data = f'{{"merchants":{{{merchants}}},"heartbeat_s":15,"connection_id":"?"}}'
    return f"retry: 0\nevent: ready\ndata: {data}\n\n".encode()


def position(merchant_id: str, number: int) -> bytes:
    data = f'{{"merchant_id":"{merchant_id}"}}'
    return f"id: {merchant_id}@{at(number)}\nevent: position\ndata: {data}\n\n".encode()


def refresh(merchant_id: str, number: int, more: str) -> bytes:
    data = f'{{"merchant_id":"{merchant_id}",{more}}}'
    return f"id: {merchant_id}@{at(number)}\nevent: refresh\ndata: {data}\n\n".encode()


CONNECTED, MISSED, SEATS = '"reason":"connected"', '"reason":"missed"', '"topic":"seats"'
PENDING = '"pending":true'


def id_of(merchant_id: str, number: int) -> str:
    return f'"id":"{merchant_id}@{at(number)}"'


def browser_of(service: Service, cycle: Cycle | None = None, **positions: int | None) -> Browser:
    """Open a browser: of merchants whose names begin with a letter here, and its positions."""
    texts = {
        name[1:]: None if number is None else str(at(number)) for name, number in positions.items()
    }
    return Browser(service, cycle=cycle, listening=listening_to(texts))


async def keep(service: Service, **newest: int) -> None:
    """Let other connections keep these merchants, which have been read up to this entry."""
    for name, number in newest.items():
        Browser(service, cycle=Cycle(10**6), listening=listening_to({name[1:]: None}))
        await turns()
        service.armed(at(number), name[1:])
    await turns()


async def test_ready_says_of_each_merchant_what_it_owes(serve: Serve) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    await keep(service, m42=7, m43=7, m44=7)
    service.shelf.entries = (entry(6, "seats"),)
    browser = browser_of(service, m42=7, m43=5, m44=None)
    await turns()

    assert browser.received == (
        ready(m42=id_of("42", 7), m43='"owed":true', m44='"owed":true')
        + refresh("43", 6, f"{SEATS},{MISSED}")
        + refresh("44", 7, CONNECTED)
    )


async def test_a_merchant_that_redis_is_late_with_holds_nothing_of_the_others_back(
    service: Service,
) -> None:
    await keep(service, m42=7)
    browser = browser_of(service, m42=7, m43=5, m44=None)
    await turns()
    first = ready(m42=id_of("42", 7), m43=PENDING, m44=PENDING)

    assert browser.received == first

    service.change(8)
    service.armed(at(5), "43")
    service.armed(at(6), "44")
    await turns()

    assert browser.received == (
        first + refresh("42", 8, SEATS) + position("43", 5) + refresh("44", 6, CONNECTED)
    )


async def test_a_merchant_that_was_pending_goes_live_after_its_position(service: Service) -> None:
    browser = browser_of(service, m42=7, m43=7)
    await turns()
    for merchant_id in ("42", "43"):
        service.armed(at(7), merchant_id)
        await turns()
        service.change(8, merchant_id=merchant_id)

    assert browser.received == (
        ready(m42=PENDING, m43=PENDING)
        + position("42", 7)
        + refresh("42", 8, SEATS)
        + position("43", 7)
        + refresh("43", 8, SEATS)
    )


async def test_a_position_waits_until_the_client_takes_bytes(service: Service) -> None:
    browser = browser_of(service, m42=7, m43=7)
    await turns()
    service.armed(at(7), "42")
    await turns()
    browser.cycle.pause()
    service.change(8)  # refused: the connection is blocked for all merchants
    service.armed(at(7), "43")
    await turns()
    before = ready(m42=PENDING, m43=PENDING) + position("42", 7)

    assert browser.received == before

    await turns()

    assert browser.received == before + refresh("42", 8, SEATS) + position("43", 7)

    service.change(9, merchant_id="43")

    assert browser.received.endswith(position("43", 7) + refresh("43", 9, SEATS))


async def test_a_refresh_of_a_merchant_stands_for_its_position(service: Service) -> None:
    browser = browser_of(service, m42=7, m43=7)
    await turns()
    service.armed(at(7), "42")
    await turns()
    browser.cycle.pause()
    service.change(8)
    service.armed(at(7), "43")
    await turns()
    service.change(8, merchant_id="43")

    assert browser.received == ready(m42=PENDING, m43=PENDING) + position("42", 7)

    await turns()

    assert browser.received == (
        ready(m42=PENDING, m43=PENDING)
        + position("42", 7)
        + refresh("42", 8, SEATS)
        + refresh("43", 8, SEATS)
    )


async def test_a_change_during_the_comparison_of_another_merchant_is_in_the_first_bytes(
    serve: Serve,
) -> None:
    service = serve(arm_timeout_s=5 * SECOND)
    await keep(service, m42=7)
    browser = browser_of(service, m42=7, m43=7)
    await turns()
    service.change(8)
    service.armed(at(7), "43")
    await turns()

    assert browser.received == (
        ready(m42=id_of("42", 7), m43=id_of("43", 7)) + refresh("42", 8, SEATS)
    )


async def test_a_connection_to_several_merchants_ends_with_one_goodbye(service: Service) -> None:
    browser = browser_of(service, m42=7, m43=7)
    await turns()
    service.armed(at(7), "42")
    await turns()

    service.hub.revoke(Revocation("43"), time.time())
    await browser.done()

    assert browser.received == (
        ready(m42=PENDING, m43=PENDING) + position("42", 7) + goodbye("revoked")
    )
    assert browser.is_complete
    assert (len(service.hub), service.hub.merchant_count) == (0, 0)


async def test_a_connection_to_several_merchants_has_one_heartbeat(serve: Serve) -> None:
    service = serve()
    browser = browser_of(service, m42=7, m43=7)
    await turns()

    service.clock.advance(15)

    assert browser.received == ready(m42=PENDING, m43=PENDING) + BEAT


async def test_a_client_that_leaves_while_redis_is_late_leaves_nothing_at_any_merchant(
    service: Service,
) -> None:
    before = asyncio.all_tasks()
    browser = browser_of(service, m42=7, m43=7)
    await turns()

    browser.cycle.lose()
    await browser.done()

    assert (len(service.hub), service.hub.merchant_count) == (0, 0)
    assert asyncio.all_tasks() == before


async def test_a_failure_at_one_merchant_fails_the_request_at_once(serve: Serve) -> None:
    service = serve(arm_timeout_s=1000)
    await keep(service, m42=7)
    service.shelf.error = RuntimeError("a bug")
    browser = browser_of(service, m42=5, m43=7)

    with pytest.raises(RuntimeError, match="a bug"):
        await browser.done()
    service.tasks.remove(browser.task)

    assert len(service.hub) == 1


async def test_a_late_failure_at_one_merchant_ends_the_connection(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    browser = browser_of(service, m42=7, m43=5)
    await turns()
    service.shelf.error = RuntimeError("a bug")
    service.armed(at(7), "42")
    service.armed(at(7), "43")
    await browser.done()

    assert browser.received.endswith(position("42", 7) + goodbye("failed"))
    assert [each.getMessage() for each in caplog.records] == ["joining failed, ending the stream"]


async def test_a_client_with_a_revoked_merchant_gets_no_stream(service: Service) -> None:
    service.hub.revoke(Revocation("43"), time.time())
    browser = Browser(
        service, listening=listening_to({"42": None, "43": None}, expires_at=time.time() + 60)
    )

    with pytest.raises(Unauthorized):
        await browser.done()
    service.tasks.remove(browser.task)

    assert service.source.calls == []


async def test_a_stream_of_several_merchants_is_the_same_in_the_portable_way(
    service: Service,
) -> None:
    await keep(service, m42=7)
    texts = {"42": str(at(7)), "43": str(at(7)), "44": None}
    server = Server(service, listening=listening_to(texts))
    await turns()
    service.change(8)
    service.armed(at(7), "43")
    service.armed(at(7), "44")
    await turns()
    service.change(9, merchant_id="43")
    await turns()
    service.end(EndReason.SERVER_STOPPING)
    await server.done()

    received = server.received
    first = ready(m42=id_of("42", 7), m43=PENDING, m44=PENDING)
    assert received.startswith(first)
    assert received.endswith(goodbye("server_stopping"))
    events = received[len(first) :].removesuffix(goodbye("server_stopping"))
    assert sorted(events.split(b"\n\n")) == sorted(
        (
            refresh("42", 8, SEATS)
            + position("43", 7)
            + refresh("44", 7, CONNECTED)
            + refresh("43", 9, SEATS)
        ).split(b"\n\n")
    )
    assert events.index(position("43", 7)) < events.index(refresh("43", 9, SEATS))


async def test_a_change_is_named_on_streams_of_several_merchants_and_plain_on_others(
    service: Service,
) -> None:
    service.hub.subscribe(listening_to({"42": None}).grants[0], Neighbor())
    service.armed(at(7), "42")
    browsers = [browser_of(service, m42=7, m43=7) for _ in range(5)]
    plain = Browser(service, str(at(7)))
    await turns()
    sent = [len(each.received) for each in browsers]

    service.change(8)

    written = [each.received[size:] for each, size in zip(browsers, sent, strict=True)]
    assert written == [refresh("42", 8, SEATS)] * 5
    assert plain.received.endswith(refresh("42", 8, SEATS).replace(b"42@", b""))
