"""Generated input against the live service: no 500, no hang, no forged line, no memory kept.

Each test runs for ``SSE_PUSH_TEST_FUZZ_S`` seconds. A test that fails prints the smallest input
that hypothesis finds, and the line that repeats it.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import re
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote_from_bytes

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from sse_push.errors import Refusal
from sse_push.http.app import ROUTES
from sse_push.http.openapi import describe
from sse_push.settings import Settings
from tests.harness.processes import open_fds, resident_kib
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.tokens import SECRET, claims_of, raw_token, token_of
from tests.harness.waiting import wait_for
from tests.harness.wire import ANSWER_S, Answer, Wire

FUZZ_S = float(os.environ.get("SSE_PUSH_TEST_FUZZ_S", "2"))
EXAMPLES_AT_ONCE = 50
"""Hypothesis has no time limit, so each run checks some examples, until the time is over."""

CODES = {(refusal.status, refusal.value) for refusal in Refusal}
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

T = TypeVar("T")


class Target(NamedTuple):
    """The two services: anyone may listen to one, clients with a token to the other."""

    open: Service
    guarded: Service


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis of its own: the revocations of these tests must not reach other services."""
    server = Redis.start(tmp_path_factory.mktemp("fuzzed"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def target(own_redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    """Two services that have warmed up; at the end their memory is at most a tenth more."""
    common: dict[str, object] = {"drain_s": 1, "refresh_interval_ms": 1, "log_level": "debug"}
    target = Target(
        Service.start(tmp_path_factory.mktemp("open"), own_redis.url, settings=common),
        Service.start(
            tmp_path_factory.mktemp("guarded"),
            own_redis.url,
            "--subscribe-auth",
            "token",
            settings=common,
            token_keys=SECRET,
            token_cookie="push",
            token_audience="push.test",
            token_issuer="https://shop.test",
            allowed_origins="https://a.test",
        ),
    )
    for service in target:
        warm_up(service)
    before = [(open_fds(service.worker), resident_kib(service.worker)) for service in target]
    yield target
    for service, (files, kib) in zip(target, before, strict=True):
        pid = service.worker
        wait_for(functools.partial(has_at_most, pid, files + 1), "all to be closed")
        grown_kib = resident_kib(pid) - kib
        assert service.stop() == 0, service.log
        service.assert_no_errors()
        assert grown_kib < kib * 0.1, f"grew by {grown_kib} KiB from {kib} KiB"


def has_at_most(pid: int, files: int) -> bool:
    return open_fds(pid) <= files


def warm_up(service: Service) -> None:
    """Repeat each kind of request until the memory of the process no longer grows."""
    big = json.dumps(
        [{"merchant_id": f"warm-{number}", "data": "x" * 900} for number in range(1000)]
    )
    wires = []
    for number in range(300):
        query = f"merchant_id=warm-{number}&token={token_of(f'warm-{number}')}"
        wires.append(
            Wire(service.port, f"GET /events?{query} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        )
        with Wire(service.port, b"\0") as broken:
            broken.answer()
    for wire in wires:
        assert wire.answer() is not None
    for _ in range(10):
        assert notified(service, big.encode()).status == 200
        assert notified(service, b"[" * 1_000_000).status == 400
    for wire in wires:
        wire.__exit__(None, None, None)
    gc.collect()


def fuzz(strategy: st.SearchStrategy[T], check: Callable[[T], None]) -> None:
    """Check examples until the time is over, or hypothesis has no more."""
    ends_at = time.monotonic() + FUZZ_S
    count = 0

    @settings(
        max_examples=EXAMPLES_AT_ONCE,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: T) -> None:
        nonlocal count
        count += 1
        check(example)

    while time.monotonic() < ends_at and count % EXAMPLES_AT_ONCE == 0:
        run()


def notified(service: Service, body: bytes, media_type: str = JSON) -> Answer:
    head = (
        f"POST /notify HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with Wire(service.port, head.encode() + body) as wire:
        answer = wire.answer()
    assert answer is not None
    return answer


# -- by the description


DOCUMENT = json.loads(json.dumps(describe(ROUTES, notify_max_items=Settings().notify_max_items)))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
ENDLESS = {("/events", "GET")}
"""Operations whose answer has no end, for which schemathesis would wait; tested further below."""

OPERATIONS = [
    (path, method.upper())
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if (path, method.upper()) not in ENDLESS
]
WITH_INPUT = [("/events", "HEAD"), ("/notify", "POST"), ("/revoke", "POST")]


def answered_as_described(service: Service, case: schemathesis.Case[Any]) -> Any:
    began_at = time.monotonic()
    answer = case.call(
        base_url=service.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=ANSWER_S
    )
    assert time.monotonic() - began_at < ANSWER_S
    case.validate_response(answer, checks=CHECKS)
    return answer


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_described_request_is_answered_as_described(
    target: Target, path: str, method: str
) -> None:
    def check(case: schemathesis.Case[Any]) -> None:
        answer = answered_as_described(target.open, case)
        if path == "/notify" and case.media_type == JSON:
            body: Any = case.body
            items = body if isinstance(body, list) else [body]
            # 7.0 is an integer for JSON Schema, and none for us.
            if not any(isinstance(each["merchant_id"], float) for each in items):
                assert answer.status_code in {200, 413}, answer.text

    operation = SCHEMA[path][method]
    fuzz(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), check)


@pytest.mark.parametrize(("path", "method"), WITH_INPUT)
def test_a_request_beside_the_description_is_refused_as_described(
    target: Target, path: str, method: str
) -> None:
    def check(case: schemathesis.Case[Any]) -> None:
        answer = answered_as_described(target.open, case)
        # A form has no other values than texts, so what is none becomes one on the way.
        if case.media_type == JSON and answer.status_code == 200:
            results = answer.json()
            assert isinstance(results, list), answer.text
            assert any("error" in each for each in results), answer.text

    operation = SCHEMA[path][method]
    fuzz(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), check)


# -- what comes in and goes out


NAMES = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
EVIL = st.sampled_from(
    [
        *(
            "\n\nevent: refresh\ndata: {}\n\n",
            "\r",
            "\n",
            "\0",
            "\x85",
            "\u2028",
            "\u202e",
            "\ufeff",
        ),
        *("id: 1-1", "data:", ": ", "retry: 0", '"}', "\\", "\ud800", "%0a", "$", "+", "\x1b[31m"),
    ]
)
TEXTS = st.text() | st.lists(EVIL | st.text(max_size=5), max_size=6).map("".join)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12
)
SENDERS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=128)
QUOTES = st.sampled_from(['"', "\\", '"}', '","reason":"missed', "\\n", "\\u000a", "data: {}"])
GOOD: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"topic": NAMES, "data": VALUES, "by": SENDERS | QUOTES}
)
ANY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "topic": NAMES | TEXTS | VALUES,
        "data": VALUES,
        "by": st.text(max_size=128) | TEXTS | VALUES,
        "other": VALUES,
    },
)


def test_a_notification_arrives_as_it_was_sent_or_not_at_all(target: Target, merchant: str) -> None:
    request = f"GET /events?merchant_id={merchant} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    with Wire(target.open.port, request) as wire:
        assert wire.answer() is not None
        wire.events(merchant)
        assert notified(target.open, f'{{"merchant_id":"{merchant}"}}'.encode()).status == 200
        wire.events(merchant, count=2)

        def check(fields: dict[str, Any]) -> None:
            body = json.dumps({"merchant_id": merchant, **fields}).encode()
            answer = notified(target.open, body)
            if answer.status != 200:
                assert (answer.status, answer.code) in {(400, "malformed"), (413, "too_large")}
                return
            wire.body = b""  # what came before has been checked
            event = wire.refresh(merchant, json.loads(answer.body)["id"])
            told = {name: value for name, value in fields.items() if value is not None}
            assert json.loads(event.data) == {"merchant_id": merchant, **told}

        fuzz(GOOD | ANY, check)


BODIES = st.one_of(
    st.binary(),
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    VALUES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")),
    st.lists(
        st.sampled_from([b"merchant_id", b"topic", b"data", b"by", b"=", b"&", b"%", b"42", b";"])
    ).map(b"".join),
    st.lists(st.tuples(TEXTS, TEXTS)).map(
        lambda pairs: b"&".join(
            quote_from_bytes(name.encode("utf-8", "surrogatepass")).encode()
            + b"="
            + quote_from_bytes(value.encode("utf-8", "surrogatepass")).encode()
            for name, value in pairs
        )
    ),
)


def test_a_generated_body_is_answered(target: Target) -> None:
    def check(example: tuple[bytes, str]) -> None:
        answer = notified(target.open, *example)
        if answer.status != 200:
            assert (answer.status, answer.code) in CODES

    types = st.sampled_from([JSON, FORM, "Application/JSON; charset=x", "text/plain", "", "a/b"])
    fuzz(st.tuples(BODIES, types), check)


# -- who listens, in all ways


def quoted(raw: bytes) -> bytes:
    return quote_from_bytes(raw).encode()


WORDS = [
    b"42",
    b"m-fuzz",
    b"..",
    b"1-1",
    b"1795454750480-0",
    b"$",
    b"+",
    b"",
    b"a,b",
    b"*",
    b"\xff",
]
TOKENS = [
    token_of("42").encode(),
    token_of(["42", "43"]).encode(),
    token_of("42", expires_in_s=-9).encode(),
]
RAW = st.sampled_from([*WORDS, *TOKENS]) | st.binary(max_size=40) | EVIL.map(
    lambda text: text.encode("utf-8", "surrogatepass")
)  # fmt: skip
PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from([b"merchant_id", b"last_event_id", b"token", b"merchant_id[]", b"x"]),
        RAW.map(quoted) | RAW,
    ),
    max_size=4,
).map(lambda pairs: b"&".join(name + b"=" + value for name, value in pairs))
QUERIES = st.one_of(
    st.just(b"merchant_id=42"),
    RAW.map(lambda raw: b"merchant_id=42&last_event_id=" + quoted(raw)),
    RAW.map(lambda raw: b"merchant_id=42&token=" + quoted(raw)),
    st.sampled_from(TOKENS).map(lambda token: b"merchant_id=42&token=" + token),
    PARAMETERS,
    RAW,
)
HEADER_NAMES = [b"Accept", b"Origin", b"Last-Event-ID", b"Authorization", b"Cookie", b"Host"]
HEADER_NAMES += [b"Sec-Fetch-Site", b"X-Merchant-Id", b"X-Forwarded-For", b"Connection", b"Upgrade"]
HEADER_NAMES += [b"Access-Control-Request-Method", b"Expect", b"last_event_id", b"\xff", b""]
HEADER_VALUES = st.one_of(
    RAW,
    st.sampled_from(
        [b"text/event-stream", b"*/*", b"application/json", b"https://a.test", b"null"]
    ),
    st.sampled_from([b"cross-site", b"same-origin", b"GET", b"websocket", b"h2c", b"keep-alive"]),
    st.sampled_from([b"close", b"upgrade", b"100-continue", b"test", b"push=a; push=b"]),
    st.sampled_from(TOKENS).map(lambda token: b"Bearer " + token),
    st.sampled_from(TOKENS).map(lambda token: b"push=" + token),
)
HEADERS = st.lists(st.tuples(st.sampled_from(HEADER_NAMES), HEADER_VALUES), max_size=5)
METHODS = st.one_of(
    st.just(b"GET"),
    st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"DELETE", b"TRACE", b"get"]),
)
PATHS = st.one_of(
    st.just(b"/events"),
    st.sampled_from([b"/events", b"/event%73", b"//events", b"/events/", b"/notify", b"*", b"/"]),
)


def test_a_generated_request_for_events_gets_an_event_stream_or_a_refusal(target: Target) -> None:
    def check(
        example: tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]], bool, object],
    ) -> None:
        method, path, query, headers, is_guarded, data = example
        service = target.guarded if is_guarded else target.open
        lines = [method + b" " + path + b"?" + query + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in headers]
        with Wire(service.port, b"\r\n".join([*lines, b"", b""])) as wire:
            answer = wire.answer(to_head=method == b"HEAD")
            if answer is not None and answer.status == 100:
                answer = wire.answer(to_head=method == b"HEAD")
            assert answer is not None, "an answer"
            if method == b"HEAD":
                assert answer.status in {200, 400, 401, 403, 404, 405}
            elif answer.status == 200:
                assert answer.headers["content-type"].startswith("text/event-stream")
                listened(wire, service, data)
            elif answer.status == 204:
                assert method == b"OPTIONS"
            else:
                assert (answer.status, answer.code) in CODES

    fuzz(st.tuples(METHODS, PATHS, QUERIES, HEADERS, st.booleans(), VALUES), check)


def listened(wire: Wire, service: Service, data: object) -> None:
    """Notify the merchant of an open event stream, and check its event."""
    merchant_id = merchant_of(wire)
    wire.events(merchant_id)
    answer = notified(service, json.dumps({"merchant_id": merchant_id, "data": data}).encode())
    if answer.status == 200:
        event = wire.refresh(merchant_id, json.loads(answer.body)["id"])
        told = json.loads(event.data)
        assert set(told) <= {"merchant_id", "data"}
        assert told.get("data", data) == data


def merchant_of(wire: Wire) -> str:
    while not (found := re.search(rb'"merchant_id":"([A-Za-z0-9._:-]{1,64})"', wire._buffer)):
        assert wire._more(), "a stream begins with ready"
    return found[1].decode()


# -- tokens


CLAIMS = st.dictionaries(
    st.sampled_from(["merchant_id", "exp", "iat", "nbf", "aud", "iss", "sub", "jti", "kid", "x"]),
    VALUES | st.lists(st.sampled_from(["42", "43", 42, "", "a b"])) | st.just(...),
    max_size=3,
)
HEADS = st.just({"alg": "HS256", "typ": "JWT"}) | st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "jku", "jwk", "crit", "b64", "zip"]),
    VALUES | st.sampled_from(["HS256", "none", "RS256", "ES256", "HS512", ["b64"], "JWT"]),
)


def test_a_generated_token_is_accepted_or_refused(target: Target) -> None:
    def check(example: tuple[object, dict[str, Any], int, bytes]) -> None:
        head, claims, position, insert = example
        good = claims_of("42")
        payload = {name: each for name, each in {**good, **claims}.items() if each is not ...}
        token = raw_token(head, payload).encode()
        position %= len(token) + 1
        token = token[:position] + insert + token[position:]
        request = b"GET /events?token=" + quoted(token) + b" HTTP/1.1\r\nHost: test\r\n\r\n"
        with Wire(target.guarded.port, request) as wire:
            answer = wire.answer()
            assert answer is not None
            if answer.status == 200:
                assert merchant_of(wire)
            else:
                assert (answer.status, answer.code) in {
                    (400, "malformed"),
                    (401, "unauthorized"),
                    (403, "forbidden"),
                }

    inserts = (
        st.just(b"") | st.just(b"") | st.sampled_from([b".", b"=", b"\0", b"\xff", b" ", b"-"])
    )
    fuzz(st.tuples(HEADS, CLAIMS, st.integers(0, 1000), inserts), check)


# -- any bytes


TEMPLATES = [
    b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 1-1\r\n\r\n",
    b"POST /notify HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer " + KEY.encode()
    + b'\r\nContent-Length: 20\r\n\r\n{"merchant_id":"42"}',
    b"POST /notify HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer " + KEY.encode()
    + b'\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{"merchant_id":"42"}\r\n0\r\n\r\n',
    b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\nGET /openapi.json HTTP/1.1\r\nHost: test\r\n\r\n",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.integers(0, 12),
        st.binary(max_size=4)
        | st.sampled_from(
            [b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\r\n ", b": ", b"0", b"-", b"\xff"]
        )
        | st.sampled_from(
            [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1"]
        ),
    ),
    max_size=6,
)


def test_generated_bytes_are_never_answered_with_a_server_error(target: Target) -> None:
    def check(example: tuple[bytes, list[tuple[int, int, bytes]]]) -> None:
        raw, edits = example
        for position, length, insert in edits:
            position %= len(raw) + 1  # noqa: PLW2901 (within what is there)
            raw = raw[:position] + insert + raw[position + length :]
        with socket.create_connection(("127.0.0.1", target.open.port), timeout=ANSWER_S) as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while chunk := sock.recv(1 << 16):
                    got += chunk
            except ConnectionResetError:
                pass
        for status in re.findall(rb"^HTTP/1\.1 ([0-9]{3}) ", got, re.MULTILINE):
            assert int(status) in {100, 200, 400, 401, 404, 405, 408, 413, 415, 431}, got

    fuzz(st.tuples(st.sampled_from(TEMPLATES) | st.binary(max_size=200), EDITS), check)


def test_the_service_still_serves_after_all_generated_input(target: Target, merchant: str) -> None:
    for service in target:
        query = f"merchant_id={merchant}&token={token_of(merchant)}"
        with Wire(
            service.port, f"GET /events?{query} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
        ) as wire:
            assert wire.answer() is not None
            wire.events(merchant)
            answer = notified(service, json.dumps({"merchant_id": merchant}).encode())
            wire.refresh(merchant, json.loads(answer.body)["id"])
