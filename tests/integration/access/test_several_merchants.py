"""One event stream of several merchants over HTTP: its bytes, its rights, and its end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator

import httpx2
import pytest

from tests.harness.access import COOKIE, refused, status_of
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher, Stream, open_stream, publishing
from tests.harness.tokens import token_of


@pytest.fixture
async def backend(guarded: Service) -> AsyncGenerator[Publisher]:
    async with publishing(guarded.url) as publisher:
        yield publisher


@pytest.fixture
def trio(merchant: str) -> list[str]:
    return [f"{merchant}-{name}" for name in "abc"]


def named(*merchant_ids: str) -> str:
    return "&".join(f"merchant_id={each}" for each in merchant_ids)


def masked(stream: Stream) -> str:
    """Return what arrived, without what differs from connection to connection."""
    text = re.sub(r"retry: [0-9]+", "retry: ?", stream.body.decode())
    return re.sub(r'"connection_id":"[^"]+"|"grant":"[0-9a-f]{16}"', "?", text)


async def grant_of(guarded: Service, query: str) -> str | None:
    async with open_stream(guarded.url, query=query) as stream:
        grant: str | None = json.loads((await stream.next("ready")).data).get("grant")
        return grant


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_stream_of_several_merchants_byte_for_byte(
    guarded: Service, backend: Publisher, trio: list[str], *, is_named: bool
) -> None:
    a, b, c = trio
    at_a, old_b = await backend.notify(a), await backend.notify(b)
    new_b, at_c = await backend.notify(b, topic="seats"), await backend.notify(c)
    async with open_stream(guarded.url, query=f"{named(*trio)}&token={token_of(trio)}"):
        query = f"token={token_of(trio)}&last_event_id={a}@{at_a}&last_event_id={b}%40{old_b}"
        query += f"&{named(*trio)}" if is_named else ""
        async with open_stream(guarded.url, query=query) as stream:
            await stream.next("refresh", 2)
            last = await backend.notify(a, data={"seat": "C7"}, by="tab-1")
            await stream.next("refresh", 3)

    assert masked(stream).partition("event: heartbeat")[0] == (
        f'retry: ?\nevent: ready\ndata: {{"merchants":{{"{a}":{{"id":"{a}@{at_a}"}},'
        f'"{b}":{{"owed":true}},"{c}":{{"owed":true}}}},?,"heartbeat_s":1,?}}\n\n'
        f'id: {b}@{new_b}\nevent: refresh\ndata: {{"merchant_id":"{b}","topic":"seats",'
        '"reason":"missed"}\n\n'
        f'id: {c}@{at_c}\nevent: refresh\ndata: {{"merchant_id":"{c}","reason":"connected"}}\n\n'
        f'id: {a}@{last}\nevent: refresh\ndata: {{"merchant_id":"{a}","data":{{"seat":"C7"}},'
        '"by":"tab-1"}\n\n'
    )


@pytest.mark.parametrize("times", [1, 2])
async def test_a_url_that_names_one_merchant_has_the_bytes_that_it_always_had(
    guarded: Service, backend: Publisher, merchant: str, times: int
) -> None:
    """To name it twice is to name it once; the other merchants of the token make no difference."""
    newest = await backend.notify(merchant)
    token = token_of([merchant, f"{merchant}-other"])
    query = f"{named(*[merchant] * times)}&token={token}"
    async with open_stream(guarded.url, last_event_id=newest, query=query) as stream:
        await stream.next("ready")
        last = await backend.notify(merchant, topic="seats")
        await stream.next("refresh")

    assert masked(stream).partition("event: heartbeat")[0] == (
        f'retry: ?\nid: {newest}\nevent: ready\ndata: {{"merchant_id":"{merchant}",'
        '"heartbeat_s":1,?}\n\n'
        f'id: {last}\nevent: refresh\ndata: {{"merchant_id":"{merchant}","topic":"seats"}}\n\n'
    )


async def test_each_merchant_has_its_position_from_the_place_that_wins(
    guarded: Service, backend: Publisher, trio: list[str]
) -> None:
    """The header for ``a``, the query for ``b``; a plain ID is no position of any of several."""
    a, b, c = trio
    old_a, at_b, at_c = [await backend.notify(each) for each in trio]
    at_a = await backend.notify(a)
    query = f"{named(*trio)}&token={token_of(trio)}&last_event_id={a}@{old_a}"
    query += f"&last_event_id={b}@{at_b}&last_event_id={at_c}"
    async with open_stream(guarded.url, last_event_id=f"{a}@{at_a}", query=query) as stream:
        ready = json.loads((await stream.next("ready")).data)
        refresh = await stream.next("refresh")

    assert ready["merchants"] == {
        a: {"id": f"{a}@{at_a}"},
        b: {"id": f"{b}@{at_b}"},
        c: {"owed": True},
    }
    assert json.loads(refresh.data) == {"merchant_id": c, "reason": "connected"}


async def test_all_merchants_of_a_stream_must_be_allowed(client: httpx2.AsyncClient) -> None:
    query = f"{named('42', '44', '45')}&token={token_of(['42', '43'])}"

    answer = await client.get(f"/events?{query}")

    assert refused(answer) == (
        403,
        "forbidden",
        "expected a merchant that you may listen to, got '44'",
    )
    assert await status_of(client, query.replace("44", "43").replace("&merchant_id=45", "")) == 200


async def test_a_stream_of_too_many_merchants_is_refused(client: httpx2.AsyncClient) -> None:
    many = [f"m{number}" for number in range(17)]
    token = token_of(many)

    for query in (named(*many), ""):
        answer = await client.get(f"/events?{query}&token={token}")
        assert refused(answer) == (
            400,
            "malformed",
            "expected at most 16 merchants on one connection, got 17: name fewer by merchant_id, "
            "and open another connection",
        )
    assert await status_of(client, f"{named(*many[:16], *many[:16])}&token={token}") == 200


async def test_a_revocation_of_one_merchant_ends_the_stream_of_all(
    guarded: Service, client: httpx2.AsyncClient, trio: list[str]
) -> None:
    token = token_of(trio, jti="several", iat=int(time.time()))
    async with open_stream(guarded.url, query=f"token={token}") as stream:
        await stream.next("ready")
        body = {"merchant_id": trio[2], "jti": "several"}
        await client.post("/revoke", json=body, headers={"Authorization": f"Bearer {KEY}"})
        goodbye = await stream.next("goodbye")
        await stream.wait_complete()

    assert json.loads(goodbye.data) == {"reason": "revoked"}
    assert await status_of(client, f"token={token}") == 401
    assert await status_of(client, f"{named(*trio[:2])}&token={token}") == 200


async def test_a_token_of_several_merchants_expires_for_all(
    guarded: Service, trio: list[str]
) -> None:
    token = token_of(trio, exp=time.time() + 1.5)
    async with open_stream(guarded.url, query=f"token={token}") as stream:
        await stream.wait_complete()

    assert [each.type for each in stream.events if each.type != "heartbeat"] == [
        "ready",
        "refresh",
        "refresh",
        "refresh",
        "expiring",
        "goodbye",
    ]


async def test_clients_with_the_same_rights_have_the_same_grant(
    guarded: Service, merchant: str
) -> None:
    other = f"{merchant}-other"
    both = token_of([merchant, other], sub="user-1", jti="a")
    later = token_of([other, merchant], sub="user-1", jti="b")
    grants = [
        await grant_of(guarded, query)
        for query in (
            f"token={both}",
            f"token={later}&{named(merchant, other)}",
            f"token={later}&{named(other)}&grant=1",
            f"token={token_of([merchant, other], sub='user-2')}",
            f"token={token_of([merchant], sub='user-1')}",
        )
    ]

    assert grants[0] is not None
    assert re.fullmatch("[0-9a-f]{16}", grants[0])
    assert grants[:3] == [grants[0]] * 3
    assert len({*grants}) == 3
    assert await grant_of(guarded, f"token={both}&{named(merchant)}") is None


async def test_a_cookie_names_all_merchants_of_a_stream(guarded: Service, trio: list[str]) -> None:
    headers = {"Cookie": f"{COOKIE}={token_of(trio)}"}
    async with open_stream(guarded.url, query="", headers=headers) as stream:
        ready = await stream.next("ready")
        await stream.next("refresh", 3)

    assert [*json.loads(ready.data)["merchants"]] == trio
    assert ready.id == ""
