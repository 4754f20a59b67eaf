"""POST /notify: what is stored, and what is refused with which text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from sse_push.notification import EventId
from tests.harness.ids import in_redis
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND
from tests.integration.http.stored import MERCHANT_ID, NAME, appends, entries, key_of

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
        (b"null", "expected a JSON object with merchant_id, got null"),
        (b'"M"', "expected a JSON object with merchant_id, got 'M' (string)"),
        (b"{}", f"merchant_id: expected {NAME}, or an integer; got none"),
        (
            b'{"merchant_id": "M", "merchantId": "M"}',
            "expected only the fields merchant_id, topic, data, by, got 'merchantId': "
            "did you mean merchant_id?",
        ),
        (
            b'{"merchant_id": "M", "\\u001b[31m": 1}',
            "expected only the fields merchant_id, topic, data, by, got '\\x1b[31m'",
        ),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_not_a_notification_is_refused_with_what_was_expected(
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
        ({"merchant_id": None}, f"merchant_id: expected {NAME}, or an integer; got none"),
        ({"merchant_id": 42.0}, f"{MERCHANT_ID} 42.0 (number)"),
        ({"merchant_id": True}, f"{MERCHANT_ID} true (boolean)"),
        ({"merchant_id": ["42"]}, f"{MERCHANT_ID} a JSON array"),
        ({"merchant_id": {}}, f"{MERCHANT_ID} a JSON object"),
        ({"merchant_id": ""}, f"{MERCHANT_ID} '' (string)"),
        ({"merchant_id": " 42"}, f"{MERCHANT_ID} ' 42' (string)"),
        ({"merchant_id": "42\n"}, f"{MERCHANT_ID} '42\\n' (string)"),
        ({"merchant_id": "42\0"}, f"{MERCHANT_ID} '42\\x00' (string)"),
        ({"merchant_id": "../42"}, f"{MERCHANT_ID} '../42' (string)"),
        ({"merchant_id": "{42}"}, f"{MERCHANT_ID} '{{42}}' (string)"),
        ({"merchant_id": "４２"}, f"{MERCHANT_ID} '\\uff14\\uff12' (string)"),
        ({"merchant_id": "\ud800"}, f"{MERCHANT_ID} '\\ud800' (string)"),
        ({"merchant_id": "x" * 65}, f"{MERCHANT_ID} '{'x' * 65}' (string)"),
        ({"topic": 5}, f"topic: expected {NAME}, got 5 (number)"),
        ({"topic": ""}, f"topic: expected {NAME}, got '' (string)"),
        ({"topic": "a b"}, f"topic: expected {NAME}, got 'a b' (string)"),
        ({"topic": ["a"]}, f"topic: expected {NAME}, got a JSON array"),
        ({"by": 5}, "by: expected 1 to 128 printable characters, got 5 (number)"),
        ({"by": ""}, "by: expected 1 to 128 printable characters, got '' (string)"),
        (
            {"by": "tab\r\nid: 1"},
            "by: expected 1 to 128 printable characters, got 'tab\\r\\nid: 1' (string)",
        ),
        (
            {"by": "x" * 129},
            f"by: expected 1 to 128 printable characters, got {repr('x' * 129)[:80]} (string)",
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


async def test_data_with_an_infinite_number_is_refused(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(content=f'{{"merchant_id": "{merchant}", "data": 1e999}}')

    detail = "data: expected finite numbers, got one that is not"
    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


async def test_an_integer_counts_as_its_text_and_null_as_absent(
    redis: Redis, publisher: Publisher
) -> None:
    number = 20_000_000_000_000_000_000

    answer = await publisher.post(
        json={"merchant_id": number, "topic": None, "data": None, "by": None}
    )

    assert answer.status_code == 200
    last = redis.cli("XREVRANGE", key_of(str(number)), "+", "-", "COUNT", "1").split("\n")
    # with an empty value: Redis wants one field
    assert last == [in_redis(answer.json()["id"]), "topic"]


async def test_the_answer_is_the_id_of_an_entry_with_the_fields_as_they_were_sent(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    answer = await publisher.post(
        json={"merchant_id": merchant, "topic": "seats", "data": {"a": [1, "é"]}, "by": "tab 1"}
    )

    assert list(answer.json()) == ["id"]
    assert redis.cli("XRANGE", key_of(merchant), "-", "+").split("\n") == [
        in_redis(answer.json()["id"]),
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
    assert EventId.parse(first["id"]) < EventId.parse(second["id"])
    assert [*refused, last] == [
        {"error": "malformed", "detail": f"{MERCHANT_ID} 1.5 (number)"},
        {
            "error": "malformed",
            "detail": "expected a JSON object with merchant_id, got '42' (string)",
        },
        {"error": "too_large", "detail": "data: expected at most 8192 bytes, got 10002"},
        {
            "error": "malformed",
            "detail": "expected a JSON object with merchant_id, got a JSON array",
        },
    ]
    assert appends(redis) == before + 2
    assert entries(redis, merchant) == 2


async def test_an_empty_array_is_answered_with_an_empty_array(publisher: Publisher) -> None:
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
async def test_a_body_has_a_limit_however_its_size_is_announced(
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


async def test_a_body_that_is_too_large_is_answered_before_its_end(
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


async def test_a_form_is_stored_like_json(
    redis: Redis, publisher: Publisher, merchant: str
) -> None:
    answer = await publisher.post(
        data={"merchant_id": merchant, "topic": "seats", "data": '{"a": [1]}', "by": "täb"}
    )

    assert answer.request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert answer.status_code == 200
    assert redis.cli("XRANGE", key_of(merchant), "-", "+").split("\n") == [
        in_redis(answer.json()["id"]),
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
        (b"", f"merchant_id: expected {NAME}, or an integer; got none"),
        (b"merchant_id=%ff", "expected a form, merchant_id=…, of UTF-8"),
        ("merchant_id=é".encode(), "expected a form, merchant_id=…, of UTF-8"),
        (b"merchant_id=42&merchant_id=43", "expected each field once, got one twice"),
        (b"topic=seats", f"merchant_id: expected {NAME}, or an integer; got none"),
        (b"merchant_id=", f"{MERCHANT_ID} '' (string)"),
        (b"merchant_id=4+2", f"{MERCHANT_ID} '4 2' (string)"),
        (
            b"merchant_id=42&exclude=1",
            "expected only the fields merchant_id, topic, data, by, got 'exclude'",
        ),
        (
            b"merchant_id=42&data=seats",
            "expected JSON, got expecting value at character 0",
        ),
    ],
    ids=repr,
)
async def test_a_form_that_is_not_a_notification_is_refused(
    redis: Redis, publisher: Publisher, body: bytes, detail: str
) -> None:
    before = appends(redis)

    answer = await publisher.post(
        content=body, headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    )

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    assert appends(redis) == before


async def test_another_content_type_is_415_and_a_charset_makes_no_difference(
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
