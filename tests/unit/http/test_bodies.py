from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from sse_push.errors import InvalidNotification, TooLarge, UnsupportedMediaType
from sse_push.http.bodies import FORM, JSON, parse_form, read_body, require_media_type


def request_of(*chunks: bytes, is_whole: bool = True, **headers: str) -> Request[Any]:
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    messages.append({"type": "http.request"} if is_whole else {"type": "http.disconnect"})

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


# -- reading


@pytest.mark.parametrize("chunks", [(), (b"12345678",), (b"1234", b"", b"5678")])
async def test_a_body_up_to_the_limit_is_read_whole(chunks: tuple[bytes, ...]) -> None:
    assert await read_body(request_of(*chunks), 8) == b"".join(chunks)


@pytest.mark.parametrize("length", ["0", "9", "999999999"])
async def test_a_body_over_the_limit_is_refused_whatever_length_it_announces(length: str) -> None:
    request = request_of(b"1234", b"56789", content_length=length)

    with pytest.raises(TooLarge, match=r"^body: expected at most 8 bytes, got more$"):
        await read_body(request, 8)


async def test_a_body_is_not_read_beyond_the_limit() -> None:
    request = request_of(b"123456789", is_whole=False)

    with pytest.raises(TooLarge):
        await read_body(request, 8)


async def test_a_client_that_leaves_has_sent_no_body() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(request_of(b"1234", is_whole=False), 8)


# -- media types


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ("application/json", JSON),
        ("Application/JSON ; charset=utf-8", JSON),
        ("application/x-www-form-urlencoded;charset=utf-8", FORM),
    ],
)
def test_a_media_type_is_compared_without_case_and_parameters(header: str, media_type: str) -> None:
    assert require_media_type(request_of(content_type=header), JSON, FORM) == media_type


@pytest.mark.parametrize("header", ["gzip", "br, gzip", "GZIP", ""])
def test_a_body_that_is_compressed_is_refused_by_the_name_of_its_header(header: str) -> None:
    with pytest.raises(UnsupportedMediaType) as refusal:
        require_media_type(request_of(content_type=JSON, content_encoding=header), JSON)

    assert str(refusal.value) == f"Content-Encoding: expected none, got {header.lower()!r}"


def test_a_body_whose_header_says_that_it_is_not_compressed_is_taken() -> None:
    assert require_media_type(request_of(content_encoding="Identity"), JSON) == JSON


def test_a_body_without_a_type_is_json() -> None:
    assert require_media_type(request_of(), JSON) == JSON


@pytest.mark.parametrize("header", ["", "text/plain", "application/json-seq", "x" * 1000])
def test_another_media_type_is_refused(header: str) -> None:
    with pytest.raises(UnsupportedMediaType) as refusal:
        require_media_type(request_of(content_type=header), JSON, FORM)

    assert str(refusal.value) == f"expected {JSON} or {FORM}, got {header[:80]!r}"


# -- forms


def test_a_form_is_its_fields_with_data_as_json() -> None:
    body = b"merchant_id=42&topic=a+b&by=t%C3%A4b&data=%7B%22a%22%3A%5B1%5D%7D"

    assert parse_form(body) == {
        "merchant_id": "42",
        "topic": "a b",
        "by": "täb",
        "data": {"a": [1]},
    }


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b' {"merchant_id": "42"}', "expected a form, got JSON: send Content-Type: application/"),
        (b'[{"merchant_id": "42"}]', "expected a form, got JSON"),
        (b"42", "expected a form, merchant_id=…, of UTF-8"),
        (b"merchant_id=%ff", "expected a form, merchant_id=…, of UTF-8"),
        ("merchant_id=é".encode(), "expected a form, merchant_id=…, of UTF-8"),
        (b"merchant_id=42&merchant_id=43", "expected each field once, got one twice"),
        (b"merchant_id=42&data=seats", "expected JSON, got expecting value at character 0"),
        (
            b"&".join(b"f%d=1" % number for number in range(17)),
            "expected a form of merchant_id, topic, data, by, got one of 17 fields",
        ),
    ],
)
def test_a_body_that_is_not_a_form_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(InvalidNotification) as refusal:
        parse_form(body)

    assert str(refusal.value).startswith(text)


def test_a_form_with_a_few_fields_more_is_read_to_name_the_unknown_field() -> None:
    assert len(parse_form(b"&".join(b"f%d=1" % number for number in range(16)))) == 16
