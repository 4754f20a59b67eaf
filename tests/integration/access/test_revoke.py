"""Revocations over HTTP: streams end on all workers, and tokens are refused from then on."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.access import LIMITED_KEY
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher, Stream, open_stream
from tests.harness.tokens import SECRET, token_of
from tests.harness.waiting import LATE_S, SECOND, Deadline, until

REVOCATIONS_KEY = "sse_push:revocations"
TOKENS = ("--subscribe-auth", "token", "--notify-keys", f"{KEY},{LIMITED_KEY} 42 shop-*")
TIMES = {
    "heartbeat_s": 1,
    "probe_interval_s": 0.2,
    "probe_deadline_s": SECOND,
    "drain_s": 0.2 * SECOND,
    "token_keys": SECRET,
}
REVOKED = {"error": "unauthorized", "detail": "expected a token that was not revoked"}
WITHIN_S = SECOND + LATE_S


@pytest.fixture(scope="module")
def pair(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service of two workers that requires tokens."""
    folder = tmp_path_factory.mktemp("pair")
    with serving(folder, redis.url, *TOKENS, "--workers", "2", settings=TIMES) as started:
        yield started


@pytest.fixture
def mortal(tmp_path: Path) -> Generator[Redis]:
    """A Redis that the test may break."""
    started = Redis.start(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def alone(mortal: Redis, tmp_path: Path) -> Generator[Service]:
    """A service of one worker that requires tokens, on a Redis of its own."""
    with serving(tmp_path, mortal.url, *TOKENS, settings=TIMES, notify_timeout_s=0.5) as started:
        yield started


def token(merchant: str, ago_s: float = 10, /, **claims: Any) -> str:
    """Return a token that was issued ``ago_s`` ago."""
    claims = {"iat": int(time.time() - ago_s), "aud": ..., "iss": ..., **claims}
    return token_of(merchant, **claims)


class Backend(Publisher):
    """A backend that also revokes, and a browser whose streams show the effect."""

    def __init__(self, url: str, key: str = KEY) -> None:
        super().__init__(url, key)
        self.browser = plain_http.AsyncClient(base_url=url, timeout=10 * SECOND)

    async def close(self) -> None:
        await super().close()
        await self.browser.aclose()

    async def revoke(self, merchant: str, **claims: str) -> str:
        answer = await self.ask(json={"merchant_id": merchant, **claims})
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"id"}
        entry_id: str = answer.json()["id"]
        return entry_id

    async def ask(self, **options: Any) -> httpx2.Response:
        return await self.client.post("/revoke", **options)

    async def events(self, token: str) -> httpx2.Response:
        """Ask for a stream that will not be opened."""
        return await self.browser.get("/events", params={"token": token})


@asynccontextmanager
async def backend_of(service: Service, key: str = KEY) -> AsyncGenerator[Backend]:
    made = Backend(service.url, key)
    yield made
    await made.close()


def process_of(stream: Stream) -> str:
    """Return which worker has it."""
    (ready,) = stream.of("ready")
    connection_id: str = json.loads(ready.data)["connection_id"]
    return connection_id.partition("-")[0]


async def listen(stack: AsyncExitStack, service: Service, text: str) -> Stream:
    stream = await stack.enter_async_context(open_stream(service.url, query=f"token={text}"))
    assert stream.status == 200
    await stream.next("ready")
    return stream


async def on_both(open_one: Callable[[], Awaitable[Stream]]) -> list[Stream]:
    """Open streams until both workers have two."""
    streams: list[Stream] = []
    while True:
        streams.append(await open_one())
        counts = [process_of(stream) for stream in streams]
        if len(set(counts)) == 2 and min(counts.count(each) for each in set(counts)) >= 2:
            return streams
        assert len(streams) < 200, "one worker gets all"


async def assert_revoked(stream: Stream, since: float) -> None:
    """Assert that it ended within a second with a goodbye, and that it was the last word."""
    await stream.wait_complete(seconds=WITHIN_S)
    assert time.monotonic() - since < WITHIN_S
    assert re.search(
        rb'\n\nretry: \d+\nevent: goodbye\ndata: {"reason":"revoked"}\n\n$', stream.body
    ), stream.body
    assert len(stream.of("goodbye")) == 1


async def assert_live(backend: Backend, merchant: str, *streams: Stream) -> None:
    newest = await backend.notify(merchant)
    for stream in streams:
        await until(lambda s=stream: s.parser.last_event_id.endswith(newest), "a refresh")  # type: ignore[misc]
        assert not stream.of("goodbye")


def assert_refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()) == (401, REVOKED)
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


# -- connections that end, tokens that are refused


async def test_the_streams_of_a_revoked_merchant_end_and_its_tokens_are_refused(
    pair: Service, redis: Redis, merchant: str
) -> None:
    old, other = token(merchant), token(f"{merchant}-other")
    async with AsyncExitStack() as stack, backend_of(pair) as backend:
        streams = await on_both(lambda: listen(stack, pair, old))
        others = await on_both(lambda: listen(stack, pair, other))

        since = time.monotonic()
        entry_id = await backend.revoke(merchant)
        for stream in streams:
            await assert_revoked(stream, since)
        for _ in range(10):
            assert_refused(await backend.events(old))

        assert entry_id in redis.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines()
        await assert_live(backend, f"{merchant}-other", *others)


async def test_a_token_that_is_issued_later_is_accepted(pair: Service, merchant: str) -> None:
    async with AsyncExitStack() as stack, backend_of(pair) as backend:
        await backend.revoke(merchant)
        await backend.revoke(merchant, sub="u")
        revoked_s = int(time.time())
        await until(lambda: int(time.time()) > revoked_s, "the next second")
        new = token(merchant, 0, sub="u")
        streams = await on_both(lambda: listen(stack, pair, new))

        await assert_live(backend, merchant, *streams)
        assert_refused(await backend.events(token(merchant)))
        assert_refused(await backend.events(token(merchant, iat=...)))


@pytest.mark.parametrize("claim", ["jti", "sub"])
async def test_a_revoked_token_or_subject_does_not_concern_others_of_the_merchant(
    pair: Service, merchant: str, claim: str
) -> None:
    mine = token(merchant, **{claim: "mine"})
    others = [token(merchant, **{claim: "another"}), token(merchant)]
    elsewhere = token(f"{merchant}-other", **{claim: "mine"})
    async with AsyncExitStack() as stack, backend_of(pair) as backend:
        streams = await on_both(lambda: listen(stack, pair, mine))
        untouched = [await listen(stack, pair, each) for each in others * 3]
        untouched_elsewhere = await on_both(lambda: listen(stack, pair, elsewhere))

        since = time.monotonic()
        await backend.revoke(merchant, **{claim: "mine"})
        for stream in streams:
            await assert_revoked(stream, since)

        assert_refused(await backend.events(mine))
        await assert_live(backend, merchant, *untouched)
        await assert_live(backend, f"{merchant}-other", *untouched_elsewhere)
        again = [await listen(stack, pair, each) for each in others * 3]
        await assert_live(backend, merchant, *again)


async def test_a_revoked_token_is_refused_whatever_its_iat(pair: Service, merchant: str) -> None:
    async with backend_of(pair) as backend:
        await backend.revoke(merchant, jti="t")

        for iat in (int(time.time()) - 10, int(time.time()) + 4, ...):
            await until_refused(backend, token(merchant, jti="t", iat=iat))


async def until_refused(backend: Backend, text: str) -> None:
    """Wait until every worker knows: each is asked by some connection."""
    deadline = Deadline(WITHIN_S)
    while True:
        async with backend.browser.stream("GET", "/events", params={"token": text}) as answer:
            if answer.status_code == 401:
                return
        assert not deadline.is_over()


async def until_put_off(backend: Backend, text: str) -> httpx2.Response:
    """Wait until a token gets the soft answer, and return that."""
    deadline = Deadline(5 * SECOND)
    while True:
        async with backend.browser.stream("GET", "/events", params={"token": text}) as answer:
            assert answer.status_code == 200
            if "x-sse-push-soft-answer" in answer.headers:
                await answer.aread()
                return answer
        assert not deadline.is_over()
        await asyncio.sleep(0.05)


async def test_head_of_a_revoked_token_is_refused(pair: Service, merchant: str) -> None:
    async with backend_of(pair) as backend:
        await backend.revoke(merchant)
        await until_refused(backend, token(merchant))

        answer = await backend.browser.head("/events", params={"token": token(merchant)})

    assert answer.status_code == 401


async def test_every_instance_reads_a_revocation(
    pair: Service, redis: Redis, merchant: str, tmp_path: Path
) -> None:
    elsewhere = Service.start(tmp_path, redis.url, *TOKENS, settings=TIMES)
    async with AsyncExitStack() as stack, backend_of(elsewhere) as backend:
        streams = await on_both(lambda: listen(stack, pair, token(merchant)))
        streams.append(await listen(stack, elsewhere, token(merchant)))

        since = time.monotonic()
        await backend.revoke(merchant)
        for stream in streams:
            await assert_revoked(stream, since)
    assert elsewhere.stop() == 0


async def test_a_restarted_service_remembers_revocations(
    mortal: Redis, alone: Service, tmp_path: Path
) -> None:
    text = token("42", jti="t")
    async with backend_of(alone) as backend:
        await backend.revoke("42", jti="t")

    again = Service.start(tmp_path, mortal.url, *TOKENS, settings=TIMES)
    async with AsyncExitStack() as stack, backend_of(again) as backend:
        assert_refused(await backend.events(text))
        await assert_live(backend, "42", await listen(stack, again, token("42", jti="s")))
    assert again.stop() == 0


async def test_a_service_remembers_a_revocation_that_redis_has_lost(
    mortal: Redis, alone: Service
) -> None:
    text, other = token("42", jti="t"), token("42", jti="s")
    async with AsyncExitStack() as stack, backend_of(alone) as backend:
        stream = await listen(stack, alone, other)
        await backend.revoke("42", jti="t")
        await until_refused(backend, text)

        mortal.cli("FLUSHALL")
        await backend.revoke("43")
        await until_refused(backend, token("43"))

        assert_refused(await backend.events(text))
        await assert_live(backend, "42", stream)


@pytest.mark.parametrize("seed", range(2))
async def test_a_revoked_client_never_gets_in_at_random(
    pair: Service, merchant: str, seed: int
) -> None:
    """Clients that come again and again, while their tokens are revoked at random moments."""
    chance = random.Random(seed)
    tokens = {jti: token(merchant, jti=jti, sub=f"u{jti}") for jti in map(str, range(12))}
    revoked = set(chance.sample(sorted(tokens), 8))
    is_over = asyncio.Event()

    async def come_and_go(text: str) -> Stream | None:
        """Return the last stream, or None if it was refused."""
        while True:
            async with AsyncExitStack() as stack:
                stream = await stack.enter_async_context(
                    open_stream(pair.url, query=f"token={text}")
                )
                if stream.status == 401:
                    return None
                if is_over.is_set():
                    streams.push_async_callback(stack.pop_all().aclose)
                    return stream
                await asyncio.sleep(chance.uniform(0, 0.02))

    async with AsyncExitStack() as streams, backend_of(pair) as backend:
        comers = [
            (jti, asyncio.create_task(come_and_go(text)))
            for jti, text in tokens.items()
            for _ in range(3)
        ]
        for jti in revoked:
            await asyncio.sleep(chance.uniform(0, 0.05))
            claims = {"jti": jti} if chance.random() < 0.5 else {"sub": f"u{jti}"}
            await backend.revoke(merchant, **claims)
        is_over.set()
        ended = [(jti, await task) for jti, task in comers]

        for jti, stream in ended:
            if jti not in revoked:
                assert stream is not None
                await assert_live(backend, merchant, stream)
            elif stream is not None:  # opened before this worker knew
                await assert_revoked(stream, time.monotonic())


# -- when Redis can't be read


async def test_new_streams_are_put_off_and_old_ones_stay_while_revocations_are_unknown(
    mortal: Redis, alone: Service
) -> None:
    async with AsyncExitStack() as stack, backend_of(alone) as backend:
        stream = await listen(stack, alone, token("42"))
        refused = token("43")
        await backend.revoke("43")
        await until_refused(backend, refused)
        with frozen(mortal.process.pid):
            soft = await until_put_off(backend, token("42"))
            plain = await backend.browser.get(
                "/events", params={"token": token("42")}, headers={"Accept": "application/json"}
            )
            forged = await backend.browser.get("/events", params={"token": token("42") + "x"})
            known = await backend.events(refused)
            beats = len(stream.of("heartbeat"))
            await stream.next("heartbeat", beats + 1)
        await until(alone.is_ready, "Redis again")
        await assert_live(backend, "42", stream, await listen(stack, alone, token("42")))

    assert (soft.status_code, soft.headers["content-type"]) == (
        200,
        "text/event-stream; charset=utf-8",
    )
    assert re.fullmatch(
        r'retry: \d+\nevent: goodbye\ndata: {"reason":"not_ready"}\n\n', soft.text
    ), soft.text
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert (plain.status_code, plain.json()) == (
        503,
        {"error": "unavailable", "detail": "not_ready"},
    )
    assert forged.status_code == 401
    assert_refused(known)


async def test_a_service_that_has_not_read_the_revocations_puts_clients_off(
    mortal: Redis, tmp_path: Path
) -> None:
    mortal.cli("SET", REVOCATIONS_KEY, "no stream")
    uds = tmp_path / "push.sock"
    started = Service.start(tmp_path, mortal.url, *TOKENS, settings=TIMES, uds=uds)
    async with plain_http.at_socket(uds) as client:
        await until(lambda: "revocations can't be read" in started.log, "the read")
        soft = await client.get("/events", params={"token": token("42")})
        ready = await client.get("/readyz")
        stored = await client.post(
            "/revoke", json={"merchant_id": "42"}, headers={"Authorization": f"Bearer {KEY}"}
        )
        mortal.cli("DEL", REVOCATIONS_KEY)
        deadline = Deadline(5 * SECOND)
        while (await client.get("/readyz")).status_code != 200:
            assert not deadline.is_over()
        async with client.stream("GET", "/events", params={"token": token("42")}) as opened:
            first = await anext(opened.aiter_text())
    assert started.stop() == 0

    assert '"reason":"not_ready"' in soft.text
    assert ready.status_code == 503
    assert (stored.status_code, stored.json()["outcome"]) == (503, "not_published")
    assert "event: ready" in first


async def test_clients_without_tokens_do_not_wait_for_revocations(
    mortal: Redis, tmp_path: Path
) -> None:
    mortal.cli("SET", REVOCATIONS_KEY, "no stream")
    times = {name: value for name, value in TIMES.items() if name != "token_keys"}
    started = Service.start(tmp_path, mortal.url, settings=times)
    async with open_stream(started.url) as stream:
        await stream.next("ready")
    assert started.stop() == 0


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["full", "read only"],
)
async def test_a_redis_without_writes_refuses_revocations_and_breaks_nothing_else(
    mortal: Redis, alone: Service, break_it: tuple[str, ...], mend_it: tuple[str, ...]
) -> None:
    refused, let_in = token("42", jti="t"), token("42", jti="s")
    async with AsyncExitStack() as stack, backend_of(alone) as backend:
        stream = await listen(stack, alone, let_in)
        await backend.revoke("42", jti="t")
        mortal.cli(*break_it)
        answer = await backend.ask(json={"merchant_id": "42"})
        await until(lambda: not alone.is_ready(), "an old probe")
        assert_refused(await backend.events(refused))
        another = await listen(stack, alone, let_in)
        mortal.cli(*mend_it)
        await until(alone.is_ready, "a probe")
        await assert_live(backend, "42", stream, another)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json() == {
        "error": "unavailable",
        "detail": answer.json()["detail"],
        "outcome": "not_published",
    }


async def test_a_redis_that_does_not_answer_makes_a_503_in_time(
    mortal: Redis, alone: Service
) -> None:
    async with backend_of(alone) as backend:
        with frozen(mortal.process.pid):
            began_at = time.monotonic()
            answer = await backend.ask(json={"merchant_id": "42"})
            took_s = time.monotonic() - began_at

    assert (answer.status_code, answer.json()["outcome"]) == (503, "not_published")
    assert took_s < 0.5 + 2 * SECOND


# -- refused revocations


@pytest.mark.parametrize(
    ("options", "status", "error", "detail"),
    [
        ({"content": b"{"}, 400, "malformed", "expected JSON"),
        ({"content": b""}, 400, "malformed", "expected JSON"),
        ({"content": b'{"merchant_id":"1","merchant_id":"2"}'}, 400, "malformed", "expected each"),
        ({"json": [{"merchant_id": "42"}]}, 400, "malformed", "expected a JSON object"),
        ({"json": {}}, 400, "malformed", "merchant_id: expected"),
        ({"json": {"merchant_id": "4 2"}}, 400, "malformed", "merchant_id: expected"),
        ({"json": {"merchant_id": "42", "jti": 1}}, 400, "malformed", "jti: expected text"),
        ({"json": {"merchant_id": "42", "topic": "a"}}, 400, "malformed", "expected only"),
        (
            {"data": {"merchant_id": "42"}},
            415,
            "unsupported",
            "expected application/json, got 'application/x-www-form-urlencoded'",
        ),
        ({"content": b" " * 2_000_000}, 413, "too_large", "body: expected at most"),
    ],
)
async def test_a_malformed_revocation_is_refused_with_what_was_expected(
    pair: Service, options: dict[str, Any], status: int, error: str, detail: str
) -> None:
    async with backend_of(pair) as backend:
        answer = await backend.ask(**options)

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_405(pair: Service, method: str) -> None:
    async with backend_of(pair) as backend:
        answer = await backend.client.request(method, "/revoke")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def revocations_of(redis: Redis, merchant: str) -> int:
    return redis.cli("XRANGE", REVOCATIONS_KEY, "-", "+").splitlines().count(merchant)


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ([], 401, "unauthorized"),
        ([("Authorization", "Bearer another-key-0123456789")], 401, "unauthorized"),
        ([("Authorization", "Basic YTpi")], 401, "unauthorized"),
        ([("Authorization", f"Bearer {KEY}")] * 2, 400, "malformed"),
        ([("Authorization", f"Bearer {KEY}"), ("Origin", "")], 403, "origin_not_allowed"),
        (
            [("Authorization", f"Bearer {KEY}"), ("Origin", "https://a.test")],
            403,
            "origin_not_allowed",
        ),
        ([("Authorization", f"Bearer {LIMITED_KEY}")], 403, "forbidden"),
    ],
)
async def test_a_caller_that_may_not_notify_a_merchant_may_not_revoke(
    pair: Service,
    redis: Redis,
    merchant: str,
    headers: list[tuple[str, str]],
    status: int,
    error: str,
) -> None:
    async with plain_http.AsyncClient(base_url=pair.url) as client:
        answer = await client.post("/revoke", json={"merchant_id": merchant}, headers=headers)

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert await revocations_of(redis, merchant) == 0


async def test_a_token_may_not_revoke(pair: Service, redis: Redis, merchant: str) -> None:
    async with backend_of(pair, token(merchant)) as backend:
        answer = await backend.ask(json={"merchant_id": merchant})

    assert answer.status_code == 401
    assert await revocations_of(redis, merchant) == 0


async def test_a_key_for_some_merchants_revokes_those(pair: Service, merchant: str) -> None:
    shop = f"shop-{merchant}"
    async with AsyncExitStack() as stack, backend_of(pair, LIMITED_KEY) as backend:
        streams = await on_both(lambda: listen(stack, pair, token(shop)))

        since = time.monotonic()
        await backend.revoke(shop)
        for stream in streams:
            await assert_revoked(stream, since)


# -- connections without tokens


@pytest.mark.parametrize("mode", ["none", "header"])
async def test_revoked_streams_without_tokens_end_and_come_back(
    redis: Redis, merchant: str, tmp_path: Path, mode: str
) -> None:
    times = {name: value for name, value in TIMES.items() if name != "token_keys"}
    if mode == "header":
        times["trusted_proxies"] = "127.0.0.1"
    started = Service.start(
        tmp_path, redis.url, "--subscribe-auth", mode, "--workers", "2", settings=times
    )
    headers = {"X-Merchant-Id": merchant}
    async with AsyncExitStack() as stack, backend_of(started) as backend:

        async def come() -> Stream:
            stream = await stack.enter_async_context(
                open_stream(started.url, merchant, headers=headers)
            )
            await stream.next("ready")
            return stream

        # A worker ends what is open when it learns of a revocation: both have to have learned.
        streams = await on_both(come)
        since = time.monotonic()
        await backend.revoke(merchant)
        for stream in streams:
            await assert_revoked(stream, since)
        await assert_live(backend, merchant, *[await come() for _ in range(6)])
        of_claims = [{"merchant_id": merchant, claim: "x"} for claim in ("jti", "sub")]
        refused = [await backend.ask(json=body) for body in of_claims]
    assert started.stop() == 0
    started.assert_no_errors()

    for answer in refused:
        assert answer.status_code == 400
        assert answer.json() == {
            "error": "malformed",
            "detail": "expected merchant_id only, got jti or sub: no connection here has a token "
            f"(subscribe_auth is {mode})",
        }
