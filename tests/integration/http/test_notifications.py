"""The HTTP interface: what is refused and why, what Redis's absence looks like, and readiness."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import httpx
import pytest
import uvicorn

from sse_push.http.app import create_app
from sse_push.notification import EntryId
from sse_push.server import listening_socket
from sse_push.settings import Settings
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, until, wait_for

NAME = "1 to 64 characters of A-Z a-z 0-9 . _ : -"
MERCHANT_ID = f"merchant_id: expected {NAME}, or an integer; got"
OTHER_KEY = "another-key-of-the-tests-9876543210"


def key_of(merchant: str) -> str:
    return f"sse_push:{{{merchant}}}"


def entries(redis: Redis, merchant: str) -> int:
    return int(redis.cli("XLEN", key_of(merchant)))


def appends(redis: Redis) -> int:
    """Return how many XADD this Redis has ever executed, whatever the key."""
    lines = redis.cli("INFO", "commandstats").splitlines()
    line = next((each for each in lines if each.startswith("cmdstat_xadd:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


# -- what is not a notification


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "expected JSON, got expecting value at character 0"),
        (b"hello", "expected JSON, got expecting value at character 0"),
        (b'{"merchant_id": "M"', "expected JSON, got expecting ',' delimiter at character 19"),
        (b'{"merchant_id": "M"} {}', "expected JSON, got extra data at character 21"),
        (b'{"merchant_id": "M\xff"}', "expected UTF-8, got a wrong byte at 18"),
        (
            b'\xef\xbb\xbf{"merchant_id": "M"}',
            "expected JSON, got unexpected utf-8 bom (decode using utf-8-sig) at character 0",
        ),
        (b'{"merchant_id": "M", "data": NaN}', "expected JSON, got NaN, which is not JSON"),
        (
            b'{"merchant_id": "M", "data": -Infinity}',
            "expected JSON, got -Infinity, which is not JSON",
        ),
        (
            b'{"merchant_id": "M", "merchant_id": "N"}',
            "expected each name once in a JSON object, got one twice",
        ),
        (
            b'{"merchant_id": "M", "data": {"a": 1, "a": 2}}',
            "expected each name once in a JSON object, got one twice",
        ),
        (
            b'{"merchant_id": %b}' % (b"1" * 5000),
            "expected JSON, got a number with too many digits",
        ),
        (b"[" * 100_000, "expected JSON, got one nested too deeply"),
        (b"null", "expected a JSON object with merchant_id, got None (NoneType)"),
        (b'"M"', "expected a JSON object with merchant_id, got 'M' (str)"),
        (b"{}", f"merchant_id is missing, expected {NAME}"),
        (
            b'{"merchant_id": "M", "merchantId": "M"}',
            "unknown field 'merchantId' (str), expected merchant_id, topic, data, by",
        ),
        (
            b'{"merchant_id": "M", "\\u001b[31m": 1}',
            "unknown field '\\x1b[31m' (str), expected merchant_id, topic, data, by",
        ),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_no_notification_is_refused_with_what_was_expected(
    redis: Redis, publisher: Publisher, body: bytes, detail: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(content=body)

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert answer.headers["content-type"] == "application/json"
    assert appends(redis) == before


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"merchant_id": None}, f"merchant_id is missing, expected {NAME}"),
        ({"merchant_id": 42.0}, f"{MERCHANT_ID} 42.0 (float)"),
        ({"merchant_id": True}, f"{MERCHANT_ID} True (bool)"),
        ({"merchant_id": ["42"]}, f"{MERCHANT_ID} a JSON array"),
        ({"merchant_id": {}}, f"{MERCHANT_ID} a JSON object"),
        ({"merchant_id": ""}, f"{MERCHANT_ID} '' (str)"),
        ({"merchant_id": " 42"}, f"{MERCHANT_ID} ' 42' (str)"),
        ({"merchant_id": "42\n"}, f"{MERCHANT_ID} '42\\n' (str)"),
        ({"merchant_id": "42\0"}, f"{MERCHANT_ID} '42\\x00' (str)"),
        ({"merchant_id": "../42"}, f"{MERCHANT_ID} '../42' (str)"),
        ({"merchant_id": "{42}"}, f"{MERCHANT_ID} '{{42}}' (str)"),
        ({"merchant_id": "４２"}, f"{MERCHANT_ID} '\\uff14\\uff12' (str)"),
        ({"merchant_id": "\ud800"}, f"{MERCHANT_ID} '\\ud800' (str)"),
        ({"merchant_id": "x" * 65}, f"{MERCHANT_ID} '{'x' * 65}' (str)"),
        ({"topic": 5}, f"topic: expected {NAME}, got 5 (int)"),
        ({"topic": ""}, f"topic: expected {NAME}, got '' (str)"),
        ({"topic": "a b"}, f"topic: expected {NAME}, got 'a b' (str)"),
        ({"topic": ["a"]}, f"topic: expected {NAME}, got a JSON array"),
        ({"by": 5}, "by: expected 1 to 128 printable characters, got 5 (int)"),
        ({"by": ""}, "by: expected 1 to 128 printable characters, got '' (str)"),
        (
            {"by": "tab\r\nid: 1"},
            "by: expected 1 to 128 printable characters, got 'tab\\r\\nid: 1' (str)",
        ),
        (
            {"by": "x" * 129},
            f"by: expected 1 to 128 printable characters, got {repr('x' * 129)[:80]} (str)",
        ),
        ({"data": "\ud800"}, "data: expected Unicode text, got half a surrogate pair"),
    ],
    ids=repr,
)
async def test_a_field_of_a_wrong_form_is_refused_by_its_name(
    redis: Redis, publisher: Publisher, merchant: str, fields: dict[str, object], detail: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(content=json.dumps({"merchant_id": merchant, **fields}))

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


async def test_data_that_is_no_finite_number_is_refused(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(content=f'{{"merchant_id": "{merchant}", "data": 1e999}}')

    detail = "data: expected finite numbers, got one that is not"
    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


async def test_an_integer_is_its_text_and_null_is_as_good_as_nothing(
    redis: Redis, publisher: Publisher
) -> None:
    number = 20_000_000_000_000_000_000

    answer = await publisher.post(
        json={"merchant_id": number, "topic": None, "data": None, "by": None}
    )

    assert answer.status_code == 200
    last = redis.cli("XREVRANGE", key_of(str(number)), "+", "-", "COUNT", "1").split("\n")
    assert last == [answer.json()["id"], "topic"]  # with an empty value: Redis wants one field


async def test_the_answer_is_the_id_of_the_entry_with_the_fields_as_they_came(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    answer = await publisher.post(
        json={"merchant_id": merchant, "topic": "seats", "data": {"a": [1, "é"]}, "by": "tab 1"}
    )

    assert list(answer.json()) == ["id"]
    assert redis.cli("XRANGE", key_of(merchant), "-", "+").split("\n") == [
        answer.json()["id"],
        *("topic", "seats", "data", '{"a":[1,"é"]}', "by", "tab 1"),
    ]


# -- arrays


async def test_an_array_is_answered_item_by_item_in_order(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(
        json=[
            {"merchant_id": merchant, "topic": "first"},
            {"merchant_id": 1.5},
            "42",
            {"merchant_id": merchant, "data": "x" * 10_000},
            {"merchant_id": merchant, "topic": "second"},
            [],
        ]
    )

    assert answer.status_code == 200
    first, *refused, second, last = answer.json()
    assert EntryId.parse(first["id"]) < EntryId.parse(second["id"])
    assert [*refused, last] == [
        {"error": "malformed", "detail": f"{MERCHANT_ID} 1.5 (float)"},
        {
            "error": "malformed",
            "detail": "expected a JSON object with merchant_id, got '42' (str)",
        },
        {"error": "too_large", "detail": "data: expected at most 8192 bytes, got 10002"},
        {
            "error": "malformed",
            "detail": "expected a JSON object with merchant_id, got a JSON array",
        },
    ]
    assert appends(redis) == before + 2
    assert entries(redis, merchant) == 2


async def test_an_empty_array_is_answered_with_one(publisher: Publisher) -> None:
    answer = await publisher.post(json=[])

    assert (answer.status_code, answer.json()) == (200, [])


async def test_an_array_may_have_a_thousand_items_and_no_more(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    refused = await publisher.post(json=[{"merchant_id": merchant}] * 1001)
    stored = entries(redis, merchant)
    taken = await publisher.post(json=[{"merchant_id": merchant}] * 1000)

    detail = "expected at most 1000 items, got 1001"
    assert (refused.status_code, refused.json()) == (413, {"error": "too_large", "detail": detail})
    assert stored == 0
    assert taken.status_code == 200
    assert len({item["id"] for item in taken.json()}) == 1000


# -- sizes


async def test_data_has_a_limit_as_compact_json(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    fits = {"merchant_id": merchant, "data": "é" * 4095}  # 8190 bytes, and two quotes
    over = {"merchant_id": merchant, "data": "é" * 4095 + "x"}

    refused = await publisher.post(json=over)
    stored = entries(redis, merchant)
    taken = await publisher.post(json=fits)

    detail = "data: expected at most 8192 bytes, got 8193"
    assert (refused.status_code, refused.json()) == (413, {"error": "too_large", "detail": detail})
    assert stored == 0
    assert taken.status_code == 200


async def pieces(size_bytes: int) -> AsyncGenerator[bytes]:
    for _ in range(size_bytes // 1024):
        yield b" " * 1024


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
async def test_a_body_has_a_limit_however_its_size_is_told(
    redis: Redis, publisher: Publisher, merchant: str, *, is_chunked: bool
) -> None:
    notification = json.dumps({"merchant_id": merchant}).encode()
    padding = b" " * (1_048_576 - len(notification))

    if is_chunked:
        refused = await publisher.post(content=pieces(1_048_576 + 1024))
    else:
        refused = await publisher.post(content=notification + padding + b" ")
    stored = entries(redis, merchant)
    taken = await publisher.post(content=notification + padding)

    detail = "body: expected at most 1048576 bytes, got more"
    assert (refused.status_code, refused.json()) == (413, {"error": "too_large", "detail": detail})
    assert stored == 0
    assert taken.status_code == 200


async def test_a_body_that_is_too_large_is_answered_before_it_has_all_come(
    service: Service,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        writer.write(
            f"POST /notify HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 200000000\r\n\r\n".encode()
        )
        writer.write(b" " * (1_048_576 + 65_536))
        async with asyncio.timeout(5 * SECOND):
            status_line = await reader.readline()
    finally:
        writer.transport.abort()

    assert status_line == b"HTTP/1.1 413 Request Entity Too Large\r\n"


# -- forms and other types


async def test_a_form_does_as_well_as_json(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    answer = await publisher.post(
        data={"merchant_id": merchant, "topic": "seats", "data": '{"a": [1]}', "by": "täb"}
    )

    assert answer.request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert answer.status_code == 200
    assert redis.cli("XRANGE", key_of(merchant), "-", "+").split("\n") == [
        answer.json()["id"],
        *("topic", "seats", "data", '{"a":[1]}', "by", "täb"),
    ]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            b' {"merchant_id": "42"}',
            "expected a form, got JSON: send Content-Type: application/json",
        ),
        (
            b'[{"merchant_id": "42"}]',
            "expected a form, got JSON: send Content-Type: application/json",
        ),
        (b"42", "expected a form, merchant_id=…, of UTF-8"),
        (b"", f"merchant_id is missing, expected {NAME}"),
        (b"merchant_id=%ff", "expected a form, merchant_id=…, of UTF-8"),
        ("merchant_id=é".encode(), "expected a form, merchant_id=…, of UTF-8"),
        (b"merchant_id=42&merchant_id=43", "expected each field once, got one twice"),
        (b"topic=seats", f"merchant_id is missing, expected {NAME}"),
        (b"merchant_id=", f"{MERCHANT_ID} '' (str)"),
        (b"merchant_id=4+2", f"{MERCHANT_ID} '4 2' (str)"),
        (
            b"merchant_id=42&exclude=1",
            "unknown field 'exclude' (str), expected merchant_id, topic, data, by",
        ),
        (
            b"merchant_id=42&data=seats",
            "expected JSON, got expecting value at character 0",
        ),
    ],
    ids=repr,
)
async def test_a_form_that_is_no_notification_is_refused(
    redis: Redis, publisher: Publisher, body: bytes, detail: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(
        content=body, headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    )

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


async def test_another_content_type_is_415_and_a_charset_is_none(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    body = json.dumps({"merchant_id": merchant}).encode()

    refused = await publisher.post(content=body, headers={"Content-Type": "Text/Plain; a=b"})
    stored = entries(redis, merchant)
    taken = await publisher.post(
        content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )

    detail = "expected application/json or application/x-www-form-urlencoded, got 'text/plain'"
    assert (refused.status_code, refused.json()) == (
        415,
        {"error": "unsupported", "detail": detail},
    )
    assert stored == 0
    assert taken.status_code == 200


# -- keys


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (None, "expected the header Authorization: Bearer <key>"),
        ("", "expected the header Authorization: Bearer <key>"),
        ("Bearer", "expected the header Authorization: Bearer <key>"),
        (KEY, "expected the header Authorization: Bearer <key>"),
        (f"Basic {KEY}", "expected the header Authorization: Bearer <key>"),
        (f"Bearer {KEY}x", "expected a key of notify_keys, got another one"),
        (f"Bearer {KEY[:-1]}", "expected a key of notify_keys, got another one"),
        (f"Bearer {KEY},{KEY}", "expected a key of notify_keys, got another one"),
        ("Bearer none", "expected a key of notify_keys, got another one"),
        ("Bearer schlüssel", "expected a key of notify_keys, got another one"),
    ],
)
async def test_without_a_key_of_ours_nothing_is_taken_nor_looked_at(
    redis: Redis, service: Service, authorization: str | None, detail: str
) -> None:
    before = appends(redis)
    headers = httpx.Headers()
    if authorization is not None:
        headers = httpx.Headers({b"Authorization": authorization.encode("latin-1")})

    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{service.url}/notify", content=b"{nonsense", headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized", "detail": detail})
    assert answer.headers["www-authenticate"] == "Bearer"
    assert appends(redis) == before


async def test_the_scheme_may_be_of_any_case(service: Service, merchant: str) -> None:
    """As RFC 9110 has it: the name of a scheme is case-insensitive."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{service.url}/notify",
            json={"merchant_id": merchant},
            headers={"Authorization": f"bearer {KEY}"},
        )

    assert answer.status_code == 200


# -- paths, methods, queries


async def test_another_method_is_405_with_those_that_are_allowed(
    service: Service, publisher: Publisher
) -> None:
    to_notify = await publisher.client.get("/notify")
    to_events = await publisher.client.post("/events?merchant_id=42")

    assert (to_notify.status_code, to_notify.headers["allow"]) == (405, "POST")
    assert to_notify.json() == {
        "error": "method_not_allowed",
        "detail": "expected POST, got GET",
    }
    assert to_events.status_code == 405
    assert to_events.headers["allow"] == "GET, HEAD"
    assert to_events.json()["error"] == "method_not_allowed"
    service.assert_no_errors()


async def test_another_path_is_404_in_json(publisher: Publisher) -> None:
    answer = await publisher.client.get("/event?merchant_id=42")

    assert (answer.status_code, answer.json()) == (
        404,
        {
            "error": "not_found",
            "detail": "expected /events, /notify, /revoke, /healthz, /readyz, /metrics or "
            "/openapi.json, got another path",
        },
    )


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("", f"{MERCHANT_ID} None (NoneType)"),
        ("merchant_id=", f"{MERCHANT_ID} '' (str)"),
        ("merchantId=42", f"{MERCHANT_ID} None (NoneType)"),
        ("merchant_id=42%0d%0aX-Header:%201", f"{MERCHANT_ID} '42\\r\\nX-Header: 1' (str)"),
        ("merchant_id=42%00", f"{MERCHANT_ID} '42\\x00' (str)"),
        ("merchant_id=..%2f42", f"{MERCHANT_ID} '../42' (str)"),
        ("merchant_id=%ff", f"{MERCHANT_ID} '\\ufffd' (str)"),
        ("merchant_id=" + "x" * 65, f"{MERCHANT_ID} '{'x' * 65}' (str)"),
        (
            "merchant_id=42&merchant_id=43",
            "merchant_id: expected once in the query, got 2 times",
        ),
        (
            "merchant_id=42&last_event_id=1-1&last_event_id=1-2",
            "last_event_id: expected once in the query, got 2 times",
        ),
    ],
)
async def test_a_stream_of_no_merchant_is_400(
    service: Service, publisher: Publisher, query: str, detail: str
) -> None:
    answer = await publisher.client.get(f"/events?{query}")

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    service.assert_no_errors()


async def test_head_of_a_stream_ends_at_once(publisher: Publisher) -> None:
    answer = await publisher.client.head("/events?merchant_id=42", timeout=SECOND)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.content == b""


async def test_the_process_says_that_it_lives_and_that_it_is_ready(publisher: Publisher) -> None:
    alive = await publisher.client.get("/healthz")
    ready = await publisher.client.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"alive": True})
    assert ready.status_code == 200
    age_s = ready.json().pop("probe_age_s")
    assert {**ready.json(), "probe_age_s": 0} == {
        "ready": True,
        "draining": False,
        "workers": {"expected": 1, "alive": 1},
        "probe_age_s": 0,
    }
    assert 0 <= age_s <= 2 * SECOND


async def test_readiness_counts_the_workers(workers: Service) -> None:
    async with httpx.AsyncClient() as client:
        ready = await client.get(f"{workers.url}/readyz")

    assert ready.json()["workers"] == {"expected": 2, "alive": 2}


# -- a Redis that goes away


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis that is meant to break."""
    server = Redis.start(tmp_path_factory.mktemp("frail"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hardened(frail: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service on it, with two keys, and times that tests can wait for."""
    with serving(
        tmp_path_factory.mktemp("hardened"),
        frail.url,
        "--notify-keys",
        f"{OTHER_KEY}, {KEY}",
        notify_timeout_s=SECOND,
        probe_interval_s=0.1 * SECOND,
        probe_deadline_s=2 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture
async def caller(hardened: Service) -> AsyncGenerator[Publisher]:
    wait_for(hardened.is_ready, "the service to be ready again")
    backend = Publisher(hardened.url)
    yield backend
    await backend.close()


@contextmanager
def killed(redis: Redis) -> Generator[None]:
    """Be without this Redis; afterwards it is back on its port, and has forgotten everything."""
    redis.kill()
    try:
        yield
    finally:
        redis.process = Redis.start(redis.folder, port=redis.port).process


async def test_several_keys_are_good_at_the_same_time(
    hardened: Service, caller: Publisher, merchant: str
) -> None:
    other = Publisher(hardened.url, OTHER_KEY)
    stranger = Publisher(hardened.url, OTHER_KEY + "x")
    try:
        answers = [
            await backend.post(json={"merchant_id": merchant})
            for backend in (caller, other, stranger)
        ]
    finally:
        await other.close()
        await stranger.close()

    assert [answer.status_code for answer in answers] == [200, 200, 401]


async def test_without_redis_a_notification_was_certainly_not_published(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    await caller.notify(merchant)
    with killed(frail):
        single = await caller.post(json={"merchant_id": merchant})
        several = await caller.post(json=[{"merchant_id": merchant}, {}])

    assert single.status_code == 503
    assert single.headers["retry-after"] == "2"
    assert single.json().keys() == {"error", "detail", "outcome"}
    assert single.json()["error"] == "unavailable"
    assert single.json()["detail"].startswith("expected a connection to Redis, got none")
    assert single.json()["outcome"] == "not_published"
    assert several.status_code == 503
    assert several.headers["retry-after"] == "2"
    assert several.json()["error"] == "unavailable"
    assert several.json()["detail"].startswith("1 of 2 not stored: ")
    assert several.json()["outcome"] == "not_published"
    assert several.json()["results"] == [
        single.json(),
        {"error": "malformed", "detail": f"merchant_id is missing, expected {NAME}"},
    ]
    assert entries(frail, merchant) == 0
    assert (await caller.post(json={"merchant_id": merchant})).status_code == 200


async def test_a_refusal_says_nothing_of_where_redis_is(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    with killed(frail):
        answer = await caller.post(json={"merchant_id": merchant})

    assert str(frail.port) not in answer.text
    assert "127.0.0.1" not in answer.text


async def test_a_redis_that_hangs_is_answered_for_in_time_with_what_is_known(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    await caller.notify(merchant)  # so that there is a connection to send by
    with frozen(frail.process.pid):
        sent = await caller.post(json={"merchant_id": merchant})
        waited = await caller.post(json={"merchant_id": merchant})

    for answer in (sent, waited):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.elapsed.total_seconds() < 2 * SECOND
    assert sent.json()["outcome"] == "unknown"
    assert waited.json()["outcome"] == "not_published"


async def test_readiness_is_red_while_redis_hangs_and_green_again_after(
    frail: Redis, hardened: Service, caller: Publisher
) -> None:
    with frozen(frail.process.pid):
        await until(lambda: not hardened.is_ready(), "not ready", 4 * SECOND)
        red = await caller.client.get("/readyz")
        alive = await caller.client.get("/healthz")

    await until(hardened.is_ready, "ready again")
    assert red.json()["ready"] is False
    assert red.json()["probe_age_s"] >= 2 * SECOND
    assert alive.status_code == 200


async def test_a_key_of_a_wrong_type_fails_its_own_merchant_only(
    frail: Redis, caller: Publisher, merchant: str
) -> None:
    bad = f"{merchant}-bad"
    frail.cli("SET", key_of(bad), "a text")

    single = await caller.post(json={"merchant_id": bad})
    several = await caller.post(
        json=[{"merchant_id": merchant}, {"merchant_id": bad}, {"merchant_id": merchant}]
    )

    refused = {
        "error": "unavailable",
        "detail": "Redis refused the entry: WRONGTYPE Operation against a key holding the wrong"
        " kind of value",
        "outcome": "not_published",
    }
    assert (single.status_code, single.json()) == (503, refused)
    assert several.status_code == 503
    first, second, third = several.json()["results"]
    assert second == refused
    assert EntryId.parse(first["id"]) < EntryId.parse(third["id"])
    assert several.json()["detail"] == f"1 of 3 not stored: {refused['detail']}"
    assert entries(frail, merchant) == 2


# -- callers that go away


async def begin_request(service: Service, *lines: str) -> asyncio.StreamWriter:
    """Send some of a request, and leave the answer to whoever waits for it."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    return writer


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_callers_that_go_away_leave_no_connection_behind(
    frail: Redis, hardened: Service, caller: Publisher, merchant: str
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{hardened.process.pid}/fd").iterdir()))

    body = json.dumps({"merchant_id": merchant})
    request = ["POST /notify HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}"]
    request += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
    await caller.notify(merchant)
    before = descriptors()

    with frozen(frail.process.pid):
        writers = [await begin_request(hardened, *request) for _ in range(50)]
        await until(lambda: descriptors() >= before + 50, "50 callers")
        for writer in writers:
            writer.transport.abort()
        await until(lambda: descriptors() <= before + 1, "no caller")
    await until(hardened.is_ready, "ready again")

    assert (await caller.post(json={"merchant_id": merchant})).status_code == 200


async def test_a_caller_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    frail: Redis, hardened: Service, caller: Publisher, merchant: str
) -> None:
    before = appends(frail)
    writer = await begin_request(
        hardened,
        "POST /notify HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {KEY}",
        "Content-Length: 1000",
        "",
        f'{{"merchant_id": "{merchant}", ',
    )
    await caller.client.get("/healthz")  # it has come that far
    writer.transport.abort()
    await caller.client.get("/healthz")

    answer = await caller.post(json={"merchant_id": merchant})

    assert answer.status_code == 200
    assert appends(frail) == before + 1
    hardened.assert_no_errors()


# -- draining


@contextmanager
def sigterm_ignored() -> Generator[None]:
    """Leave SIGTERM to the service, of which this process is more than it knows."""
    original = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, original)


@asynccontextmanager
async def serving_here(
    redis_url: str, folder: Path, *, http: Literal["httptools", "h11"] = "httptools", **more: object
) -> AsyncGenerator[str]:
    """Serve from this process, where SIGTERM begins the drain and the server goes on."""
    settings = Settings.load(
        port=0,
        redis_url=redis_url,
        notify_keys="none",
        probe_interval_s=0.1,
        **{"subscribe_auth": "none", **more},
    )
    with listening_socket(settings) as sock, sigterm_ignored():
        config = uvicorn.Config(
            create_app(settings, folder),
            http=http,
            ws="none",
            lifespan="on",
            log_config=None,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([sock]))
        await until(lambda: server.started, "the server")
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_while_it_drains_streams_are_put_off_and_notifications_are_taken(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    async with (
        serving_here(redis.url, tmp_path, allowed_origins="https://app.test") as url,
        httpx.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
        open_stream(url, merchant) as stream,
    ):
        await stream.next("refresh")
        signal.raise_signal(signal.SIGTERM)
        await stream.next("goodbye")
        await stream.wait_complete()

        soft = await client.get(
            f"/events?merchant_id={merchant}", headers={"Origin": "https://app.test"}
        )
        hard = await client.get("/events?merchant_id=42", headers={"Accept": "application/json"})
        head = await client.head("/events?merchant_id=42")
        told = await client.post("/notify", json={"merchant_id": merchant})
        ready = await client.get("/readyz")
        alive = await client.get("/healthz")

    first, *rest = soft.text.split("\n")
    assert soft.status_code == 200
    assert soft.headers["content-type"].startswith("text/event-stream")
    assert soft.headers["x-sse-push-soft-answer"] == "1"
    assert soft.headers["access-control-allow-origin"] == "https://app.test"
    assert soft.headers["vary"] == hard.headers["vary"] == "Origin"
    assert soft.headers["cache-control"] == "no-store, no-transform"
    assert 5000 <= int(first.removeprefix("retry: ")) <= 30_000
    assert rest == ["event: goodbye", 'data: {"reason":"server_stopping"}', "", ""]
    assert (hard.status_code, hard.headers["retry-after"]) == (503, "2")
    assert hard.json() == {"error": "unavailable", "detail": "server_stopping"}
    assert head.status_code == 200
    assert told.status_code == 200
    assert entries(redis, merchant) == 1
    assert (ready.status_code, ready.json()["ready"], ready.json()["draining"]) == (
        503,
        False,
        True,
    )
    assert alive.status_code == 200
