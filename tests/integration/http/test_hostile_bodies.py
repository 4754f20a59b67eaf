"""Hostile bodies: JSON and forms, their size, and their end."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tests.harness.processes import cpu_s, open_fds, resident_kib
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.waiting import SECOND, wait_for
from tests.harness.wire import ANSWER_S, Wire
from tests.integration.http.requests import (
    BODY,
    CHUNKED,
    FORM,
    MALFORMED,
    TOO_LARGE,
    asked,
    commands,
    outcome,
    post,
    request_of,
)

HUGE_BYTES = 1 << 30 if os.environ.get("SSE_PUSH_TEST_HUGE") else 64 << 20


# -- bodies


BODIES: dict[str, tuple[bytes, tuple[int, str]]] = {
    "200 000 brackets": (b"[" * 200_000, MALFORMED),
    "200 000 braces": (b'{"a":' * 200_000, MALFORMED),
    "brackets in data": (b'{"merchant_id":"42","data":' + b"[" * 200_000, MALFORMED),
    "complete brackets": (
        b'{"merchant_id":"42","data":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        MALFORMED,
    ),
    "a name twice": (b'{"merchant_id":"42","merchant_id":"43"}', MALFORMED),
    "a name twice, escaped": (b'{"merchant_id":"42","merchant\\u005fid":"43"}', MALFORMED),
    "a name twice in data": (b'{"merchant_id":"42","data":[{"a":1,"a":1}]}', MALFORMED),
    "another name of ours": (b'{"merchant_id":"42","Merchant_id":"43"}', MALFORMED),
    "a proto": (b'{"merchant_id":"42","__proto__":{}}', MALFORMED),
    "no UTF-8": (b'{"merchant_id":"42","data":"\xff"}', MALFORMED),
    "overlong UTF-8": (b'{"merchant_id":"42","data":"\xc0\x8a"}', MALFORMED),
    "overlong NUL": (b'{"merchant_id":"42","data":"\xc0\x80"}', MALFORMED),
    "a surrogate in UTF-8": (b'{"merchant_id":"42","data":"\xed\xa0\x80"}', MALFORMED),
    "past the last character": (b'{"merchant_id":"42","data":"\xf4\x90\x80\x80"}', MALFORMED),
    "half a pair": (b'{"merchant_id":"42","data":"\\ud800"}', MALFORMED),
    "half a pair as a name": (b'{"merchant_id":"42","data":{"\\udc00":1}}', MALFORMED),
    "half a pair, not ours": (b'{"merchant_id":"42","\\ud800":1}', MALFORMED),
    "a pair": (b'{"merchant_id":"42","data":"\\ud83d\\ude00"}', (200, "")),
    "a BOM": (b'\xef\xbb\xbf{"merchant_id":"42"}', MALFORMED),
    "UTF-16": ('{"merchant_id":"42"}'.encode("utf-16"), MALFORMED),
    "UTF-32": ('{"merchant_id":"42"}'.encode("utf-32"), MALFORMED),
    "UTF-7": (b'+AHsAIg-merchant_id+ACI-:"42"+AH0-', MALFORMED),
    "NaN": (b'{"merchant_id":"42","data":NaN}', MALFORMED),
    "Infinity": (b'{"merchant_id":"42","data":[Infinity]}', MALFORMED),
    "-Infinity": (b'{"merchant_id":"42","data":{"a":-Infinity}}', MALFORMED),
    "1e999": (b'{"merchant_id":"42","data":1e999}', MALFORMED),
    "-1e999": (b'{"merchant_id":"42","data":[-1e999]}', MALFORMED),
    "1e-999": (b'{"merchant_id":"42","data":1e-999}', (200, "")),
    "5 000 digits": (b'{"merchant_id":"42","data":' + b"7" * 5000 + b"}", MALFORMED),
    "5 000 digits as merchant": (b'{"merchant_id":' + b"7" * 5000 + b"}", MALFORMED),
    "4 300 digits": (b'{"merchant_id":"42","data":' + b"7" * 4300 + b"}", (200, "")),
    "a million digits": (b'{"merchant_id":' + b"7" * 1_000_000 + b"}", MALFORMED),
    "a million decimals": (b'{"merchant_id":"42","data":0.' + b"7" * 1_000_000 + b"}", (200, "")),
    "an exponent of 5 000 digits": (b'{"merchant_id":1e' + b"9" * 5000 + b"}", MALFORMED),
    "a leading zero": (b'{"merchant_id":042}', MALFORMED),
    "a plus": (b'{"merchant_id":+42}', MALFORMED),
    "hexadecimal": (b'{"merchant_id":0x2a}', MALFORMED),
    "a comment": (b'{"merchant_id":"42"/* */}', MALFORMED),
    "a trailing comma": (b'{"merchant_id":"42",}', MALFORMED),
    "single quotes": (b"{'merchant_id':'42'}", MALFORMED),
    "a raw line end": (b'{"merchant_id":"42","data":"a\nb"}', MALFORMED),
    "a raw NUL": (b'{"merchant_id":"42","data":"a\0b"}', MALFORMED),
    "NUL after": (b'{"merchant_id":"42"}\0', MALFORMED),
    "two texts": (b'{"merchant_id":"42"}{"merchant_id":"43"}', MALFORMED),
    "two lines": (b'{"merchant_id":"42"}\n{"merchant_id":"43"}', MALFORMED),
    "nothing": (b"", MALFORMED),
    "white space": (b" \n\t", MALFORMED),
    "another white space": ('\xa0{"merchant_id":"42"}'.encode(), MALFORMED),
    "a million brackets": (b"[" + b"[]," * 340_000 + b"[]]", TOO_LARGE),
    "100 000 names": (
        b'{"merchant_id":"42","data":{'
        + b",".join(b'"%d":1' % number for number in range(90_000))
        + b"}}",
        TOO_LARGE,
    ),
    "numbers as long as can be": (
        b'{"merchant_id":"42","data":[' + b",".join([b"9" * 4300] * 240) + b"]}",
        TOO_LARGE,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_json_is_read_strictly_and_fast(target: Service, name: str) -> None:
    body, expected = BODIES[name]
    began_at = time.monotonic()

    answer = asked(target, post(body))

    assert time.monotonic() - began_at < ANSWER_S
    assert (answer.status, "" if answer.status == 200 else answer.code) == expected
    assert len(answer.body) < 400, "an error quotes little"


@pytest.mark.parametrize("name", BODIES)
def test_a_revocation_is_read_as_strictly_as_a_notification(
    watched: Redis, target: Service, name: str
) -> None:
    """None of these bodies is a revocation, even those that are notifications."""
    body, _ = BODIES[name]

    with commands(watched) as sent:
        answer = asked(target, post(body, path="/revoke"))

    assert outcome(answer) == MALFORMED
    assert len(answer.body) < 400
    assert sent == []


FORMS: dict[str, tuple[bytes, tuple[int, str]]] = {
    "200 000 brackets": (b"merchant_id=42&data=" + b"[" * 200_000, MALFORMED),
    "a field twice": (b"merchant_id=42&merchant_id=42", MALFORMED),
    "a field twice, escaped": (b"merchant_id=42&merchant%5Fid=43", MALFORMED),
    "PHP's array": (b"merchant_id[]=42", MALFORMED),
    "a name twice in data": (b"merchant_id=42&data=%7B%22a%22:1,%22a%22:2%7D", MALFORMED),
    "no UTF-8": (b"merchant_id=42&by=%FF", MALFORMED),
    "raw bytes": (b"merchant_id=42&by=\xc3\xa9", MALFORMED),
    "overlong UTF-8": (b"merchant_id=42&by=%C0%8A", MALFORMED),
    "a surrogate": (b"merchant_id=42&by=%ED%A0%80", MALFORMED),
    "half a pair in data": (b"merchant_id=42&data=%22%5Cud800%22", MALFORMED),
    "a BOM": (b"%EF%BB%BFmerchant_id=42", MALFORMED),
    "a BOM in data": (b"merchant_id=42&data=%EF%BB%BF1", MALFORMED),
    "NaN": (b"merchant_id=42&data=NaN", MALFORMED),
    "1e999": (b"merchant_id=42&data=1e999", MALFORMED),
    "5 000 digits": (b"merchant_id=42&data=" + b"7" * 5000, MALFORMED),
    "5 000 digits as merchant": (b"merchant_id=" + b"7" * 5000, MALFORMED),
    "17 fields": (b"merchant_id=42" + b"&a=" * 16, MALFORMED),
    "half a million fields": (b"a&" * 500_000 + b"a", MALFORMED),
    "different fields": (b"&".join(b"a%d=" % number for number in range(100_000)), MALFORMED),
    "a semicolon": (b"merchant_id=42;topic=a", MALFORMED),
    "half an escape": (b"merchant_id=42%", MALFORMED),
    "no escape": (b"merchant_id=%zz", MALFORMED),
    "no equals sign": (b"merchant_id", MALFORMED),
    "nothing": (b"", MALFORMED),
    "only signs": (b"&" * 10, MALFORMED),
    "data that is empty": (b"merchant_id=42&data=", MALFORMED),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read_as_strictly_as_json(watched: Redis, target: Service, name: str) -> None:
    body, expected = FORMS[name]
    began_at = time.monotonic()

    with commands(watched) as sent:
        answer = asked(target, post(body, FORM))

    assert time.monotonic() - began_at < ANSWER_S
    assert outcome(answer) == expected
    assert len(answer.body) < 400
    assert sent == []


def test_a_form_of_many_fields_costs_no_more_than_its_bytes(target: Service) -> None:
    """Parsing half a million fields once took 0.2 s of the worker, and 40 MiB."""
    request = post(b"a=&" * 340_000 + b"a=", FORM)
    asked(target, request)
    before_s, before_kib = cpu_s(target.worker), resident_kib(target.worker)

    for _ in range(10):
        assert outcome(asked(target, request)) == MALFORMED

    assert cpu_s(target.worker) - before_s < 0.5 * SECOND
    assert resident_kib(target.worker) - before_kib < 8 << 10


# -- bodies that are huge, that lie about their size, or never end


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("path", ["/notify", "/events?merchant_id=42", "/healthz"])
def test_a_huge_body_is_refused_or_ignored_and_kept_nowhere(
    target: Service, path: str, *, is_chunked: bool
) -> None:
    """The body has 64 MiB, or 1 GiB with SSE_PUSH_TEST_HUGE."""
    method = "POST" if path == "/notify" else "GET"
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {HUGE_BYTES}"
    piece = b" " * (1 << 20)
    piece = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
    head = [f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}", length]
    peak_kib = before_kib = resident_kib(target.worker)

    with Wire(target.port, request_of(*head)) as wire:
        wire.socket.settimeout(60 * SECOND)
        for _ in range(HUGE_BYTES >> 20):
            wire.send(piece)
            peak_kib = max(peak_kib, resident_kib(target.worker))
        wire.send(b"0\r\n\r\n" if is_chunked else b"")
        answer = wire.answer()

    assert answer is not None
    if path == "/notify":
        assert outcome(answer) == TOO_LARGE
    else:
        assert answer.status == 200
    assert peak_kib - before_kib < 4 << 10


def test_a_body_that_is_shorter_than_announced_is_not_a_notification(
    watched: Redis, target: Service
) -> None:
    before = open_fds(target.worker)
    with commands(watched) as sent:
        for length, body in (
            ("Content-Length: 1000", BODY),
            ("Transfer-Encoding: chunked", CHUNKED[:-5]),
            ("Transfer-Encoding: chunked", b"40000000\r\n" + BODY),
        ):
            head = ("POST /notify HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}", length)
            request = request_of(*head, body=body)
            with Wire(target.port, request) as wire:
                wire.socket.shutdown(socket.SHUT_WR)
                assert wire.answer() is None, "nobody is there to be answered"
    wait_for(lambda: open_fds(target.worker) <= before, "those connections to be closed")

    assert sent == []
