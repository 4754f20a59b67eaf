"""A poll of ``/events``, byte for byte, by a service as it runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.in_process import serving_here
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.stream import Publisher, open_stream
from tests.harness.tokens import SECRET, token_of
from tests.harness.waiting import SECOND, Deadline

POLL = {"Accept": "application/json"}
CURRENT = b'{"merchants":{},"grant":"?"}'


async def ask(
    client: httpx2.AsyncClient, merchant: str | None, position: str = "", **headers: str
) -> httpx2.Response:
    params = {} if merchant is None else {"merchant_id": merchant}
    query = {**params, **({"last_event_id": position} if position else {})}
    return await client.get("/events", params=query, headers={**POLL, **headers})


def told(merchant: str, position: str, topics: str, reason: str) -> bytes:
    owed = f'{{"id":"{position}","topics":{topics},"reason":"{reason}"}}'
    return f'{{"merchants":{{"{merchant}":{owed}}},"grant":"?"}}'.encode()


def body(answer: httpx2.Response) -> bytes:
    """Return the bytes, without the digest of the client's rights."""
    return re.sub(rb'"grant":"[0-9a-f]{16}"', b'"grant":"?"', answer.content)


async def test_a_page_polls_from_its_first_load_to_its_next_change(
    publisher: Publisher, merchant: str
) -> None:
    before = await publisher.notify(merchant)
    first = await ask(publisher.client, merchant)
    current = await ask(publisher.client, merchant, before)
    after = await publisher.notify(merchant, topic="seats")
    changed = await ask(publisher.client, merchant, before)
    by_header = await ask(publisher.client, merchant, before, **{"Last-Event-ID": after})

    assert body(first) == told(merchant, before, "null", "connected")
    assert body(current) == body(by_header) == CURRENT
    assert body(changed) == told(merchant, after, '["seats"]', "missed")
    for answer in (first, current, changed):
        assert answer.status_code == 200
        assert 5 <= int(answer.headers.pop("retry-after")) <= 15
        del answer.headers["date"], answer.headers["content-length"]
        assert dict(answer.headers) == {
            "cache-control": "no-store",
            "content-type": "application/json",
        }


async def test_a_merchant_without_a_stream_gets_a_position(
    publisher: Publisher, merchant: str
) -> None:
    first = await ask(publisher.client, merchant)
    position = first.json()["merchants"][merchant]["id"]

    assert body(first) == told(merchant, position, "null", "connected")
    assert body(await ask(publisher.client, merchant, position)) == CURRENT


async def test_a_head_request_is_answered_as_a_poll_without_a_body(publisher: Publisher) -> None:
    answer = await publisher.client.head("/events?merchant_id=42", headers=POLL)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert 5 <= int(answer.headers["retry-after"]) <= 15


@pytest.fixture
def own_redis(tmp_path: Path) -> Generator[Redis]:
    """A Redis that the test may freeze, and whose commands it counts."""
    (tmp_path / "redis").mkdir()
    started = Redis.start(tmp_path / "redis")
    yield started
    started.kill()


def reads(redis: Redis) -> int:
    """Return how many streams were read since the start."""
    stats = redis.cli("INFO", "commandstats")
    return sum(map(int, re.findall(r"cmdstat_x(?:rev)?range:calls=(\d+)", stats)))


async def test_a_poll_costs_no_read_of_redis_if_its_merchant_is_live_and_one_otherwise(
    own_redis: Redis, tmp_path: Path
) -> None:
    async with (
        # Probes are read as well: none but the first is due in this test.
        serving_here(own_redis.url, tmp_path, probe_interval_s=20, probe_deadline_s=20) as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
    ):
        for merchant in ("42", "43"):
            await client.post("/notify", json={"merchant_id": merchant})
        position = (await ask(client, "43")).json()["merchants"]["43"]["id"]
        at_first = reads(own_redis)
        async with open_stream(url, "42") as stream:
            current = (await stream.next("refresh")).id
            for_stream = reads(own_redis) - at_first
            of_live = [await ask(client, "42", current) for _ in range(10)]
            for_live = reads(own_redis) - at_first - for_stream
            of_other = [await ask(client, "43", position) for _ in range(10)]
            for_other = reads(own_redis) - at_first - for_stream - for_live

            with frozen(own_redis.process.pid):
                live = await ask(client, "42", current)
                other = await ask(client, "43", position)

    assert {body(each) for each in (*of_live, *of_other, live)} == {CURRENT}
    assert (for_stream, for_live, for_other) == (1, 0, 10)
    assert (other.status_code, other.json()) == (
        503,
        {"error": "unavailable", "detail": "not_ready"},
    )
    assert 5 <= int(other.headers["retry-after"]) <= 15


async def test_polls_leave_no_place_behind(redis: Redis, tmp_path: Path, merchant: str) -> None:
    async with (
        serving_here(redis.url, tmp_path, max_connections=1) as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
    ):
        answers = [await ask(client, merchant) for _ in range(5)]
        async with open_stream(url, merchant) as stream:
            await stream.next("refresh")
            full = await ask(client, merchant)

    assert {each.status_code for each in answers} == {200}
    assert (full.status_code, full.json()["detail"]) == (503, "full")


async def test_a_poll_needs_the_rights_of_an_event_stream(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    app = "https://app.test"
    token = token_of(merchant, jti="mine", aud=..., iss=...)
    async with (
        serving_here(
            redis.url,
            tmp_path,
            subscribe_auth="token",
            token_keys=SECRET,
            allowed_origins=app,
            poll_interval_s=100,
        ) as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
    ):
        mine = {"Authorization": f"Bearer {token}"}
        told = (await client.post("/notify", json={"merchant_id": merchant})).json()["id"]
        named = await ask(client, None, **mine, Origin=app)
        current = await ask(client, None, f"{merchant}@{told}", **mine)
        plain = await ask(client, None, told, **mine)
        refused = [
            await ask(client, merchant),
            await ask(client, "43", **mine),
            await ask(client, merchant, **mine, Origin="https://other.test"),
            await ask(client, "%", **mine),
        ]
        await client.post("/revoke", json={"merchant_id": merchant, "jti": "mine"})
        await until_revoked(client, mine)

    assert body(named) == told_named(merchant, told)
    assert 50 <= int(named.headers["retry-after"]) <= 150
    assert named.headers["access-control-allow-origin"] == app
    assert named.headers["access-control-expose-headers"] == "Retry-After"
    assert body(current) == CURRENT
    assert plain.content == named.content, "an ID without a name counts for no merchant here"
    assert [each.status_code for each in refused] == [401, 403, 403, 400]


def told_named(merchant: str, position: str) -> bytes:
    return told(merchant, f"{merchant}@{position}", "null", "connected")


async def until_revoked(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    """Wait until a poll is refused, as the revocation has come to the service."""
    deadline = Deadline(5 * SECOND)
    while (answer := await ask(client, None, **headers)).status_code == 200:
        assert not deadline.is_over(), "a poll is answered though its token is revoked"
        await asyncio.sleep(deadline.pause_s)
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")


async def test_a_poll_of_several_merchants_is_told_of_each_that_owes_something(
    publisher: Publisher, merchant: str
) -> None:
    a, b, c = (f"{merchant}-{name}" for name in "abc")
    at_a, at_b = await publisher.notify(a), await publisher.notify(b)
    newest = await publisher.notify(b, topic="seats")
    at_c = await publisher.notify(c)
    query = f"merchant_id={a}&merchant_id={b}&merchant_id={c}"
    query += f"&last_event_id={a}@{at_a}&last_event_id={b}@{at_b}"
    answer = await publisher.client.get(f"/events?{query}", headers=POLL)
    again = await publisher.client.get(
        f"/events?{query}&last_event_id={c}@{at_c}",
        headers={**POLL, "Last-Event-ID": f"{b}@{newest}"},
    )

    assert (
        body(answer)
        == (
            f'{{"merchants":{{"{b}":{{"id":"{b}@{newest}","topics":["seats"],"reason":"missed"}},'
            f'"{c}":{{"id":"{c}@{at_c}","topics":null,"reason":"connected"}}}},"grant":"?"}}'
        ).encode()
    )
    assert body(again) == CURRENT
