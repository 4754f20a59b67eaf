"""Hostile input: whatever comes in, what is answered, and what it does not reach."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest

from tests.harness.nginx import Nginx, replacing
from tests.harness.processes import cpu_s, open_fds, resident_kib
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND, program, until, wait_for
from tests.harness.wire import ANSWER_S, Answer, Wire

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MALFORMED = (400, "malformed")
NOT_HTTP = MALFORMED
"""Said by the protocol, which then closes the connection: the application was not asked."""
TOO_LARGE = (413, "too_large")

HUGE_BYTES = 1 << 30 if os.environ.get("SSE_PUSH_TEST_HUGE") else 64 << 20


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis that nobody else sends commands to."""
    server = Redis.start(tmp_path_factory.mktemp("watched"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def target(watched: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that logs all that it ever logs."""
    with serving(
        tmp_path_factory.mktemp("target"),
        watched.url,
        log_level="debug",
        drain_s=SECOND,
        probe_interval_s=0.2,
        probe_deadline_s=2 * SECOND,
    ) as started:
        yield started


def request_of(*lines: str | bytes, body: bytes = b"") -> bytes:
    """Return a request of these lines, each as it stands, and this body."""
    raw = [line.encode("latin-1") if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([*raw, b"", body])


def post(body: bytes, media_type: str = JSON, path: str = "/notify") -> bytes:
    return request_of(
        f"POST {path} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {KEY}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        body=body,
    )


def listen(query: str, *headers: str | bytes, method: str = "GET") -> bytes:
    return request_of(f"{method} /events?{query} HTTP/1.1", "Host: test", *headers)


def asked(target: Service, request: bytes) -> Answer:
    with Wire(target.port, request) as wire:
        answer = wire.answer()
    assert answer is not None, "an answer"
    return answer


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


# -- each character in each field


CHARACTERS = {
    "NUL": "\0",
    "LF": "\n",
    "CR": "\r",
    "CRLF": "\r\n",
    "an event": "\n\nevent: refresh\ndata: {}\n\n",
    "VT": "\x0b",
    "ESC": "\x1b[31m",
    "DEL": "\x7f",
    "NEL": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "half a pair": "\ud800",
}


@pytest.mark.parametrize("name", CHARACTERS)
@pytest.mark.parametrize("field", ["merchant_id", "topic", "by"])
def test_what_could_end_or_turn_a_line_is_in_no_name(
    watched: Redis, target: Service, field: str, name: str
) -> None:
    text = f"a{CHARACTERS[name]}b"
    escaped = json.dumps({"merchant_id": "42", field: text}).encode()
    fields = {"merchant_id": b"42", field: text.encode("utf-8", "surrogatepass")}
    form = b"&".join(f"{key}={quote_from_bytes(value)}".encode() for key, value in fields.items())

    with commands(watched) as sent:
        assert outcome(asked(target, post(escaped))) == MALFORMED
        assert outcome(asked(target, post(form, FORM))) == MALFORMED
        if name != "half a pair":  # else it is no UTF-8, and no JSON
            raw = json.dumps({"merchant_id": "42", field: text}, ensure_ascii=False)
            assert outcome(asked(target, post(raw.encode()))) == MALFORMED

    assert sent == []


@pytest.mark.parametrize("name", [name for name in CHARACTERS if name != "half a pair"])
def test_data_may_be_any_text_and_arrives_as_it_was_on_one_line(
    target: Service, merchant: str, name: str
) -> None:
    data = {CHARACTERS[name]: [f"a{CHARACTERS[name]}b", {"\n\nevent: x": None}]}
    form = f"merchant_id={merchant}&topic=form&data="
    with Wire(target.port, listen(f"merchant_id={merchant}")) as wire:
        assert wire.answer() is not None
        wire.events(merchant)
        assert asked(target, post(f'{{"merchant_id":"{merchant}"}}'.encode())).status == 200
        wire.events(merchant, count=2)  # the first of a new stream says nothing of itself

        body = json.dumps({"merchant_id": merchant, "topic": "json", "data": data}).encode()
        assert asked(target, post(body)).status == 200
        *_, by_json = wire.events(merchant, count=3)
        body = form.encode() + quote_from_bytes(json.dumps(data).encode()).encode()
        assert asked(target, post(body, FORM)).status == 200
        *_, by_form = wire.events(merchant, count=4)

    assert json.loads(by_json.data) == {"merchant_id": merchant, "topic": "json", "data": data}
    assert json.loads(by_form.data) == {"merchant_id": merchant, "topic": "form", "data": data}


@pytest.mark.parametrize(
    "name", [each for each in CHARACTERS if each not in {"half a pair", "NUL"}]
)
def test_what_a_stranger_has_put_into_redis_is_no_line_of_ours(
    watched: Redis, target: Service, merchant: str, name: str
) -> None:
    """All but what no argument of ``redis-cli`` can hold."""
    character = CHARACTERS[name]
    key = f"sse_push:{{{merchant}}}"
    with Wire(target.port, listen(f"merchant_id={merchant}")) as wire:
        assert wire.answer() is not None
        wire.events(merchant)
        watched.cli("XADD", key, "*", "at", "first")
        wire.events(merchant, count=2)

        fields = ("topic", f"a{character}b", "by", f"a{character}b", f"x{character}", character)
        entry_id = watched.cli("XADD", key, "*", *fields, "data", f'"a{character}b"')
        *_, event = wire.events(merchant, count=3)

    assert event.id == entry_id
    told = json.loads(event.data)
    assert told.pop("data", f"a{character}b") == f"a{character}b"
    assert told == {"merchant_id": merchant}


IDS = {
    "a word of Redis": ["$", "+", "-", ">", "*", "0", "0-0", "(1-1", "1-*", "-1-1", "1-1-1"],
    "no number": ["1", "1-", "-1", "1_0-1", "0x1-1", "1e3-1", "٣-١", "１-1", "²-1"],
    "too great": [f"{2**64}-0", f"1-{2**64}", "9" * 400 + "-1", "9" * 5000 + "-1"],
    "8 KB": ["1-" + "9" * 8_000],
    "more than an ID": ["1-1\r\nid: 2-2", "1-1\n", "\n1-1", "1-1\0", "1-1\x85", "1-1\u2028x"],
    "turned": ["\u202e1-1", "1-1\u2066", "\x1b[31m1-1", "\ufeff1-1"],
}


@pytest.mark.parametrize("kind", IDS)
def test_a_last_event_id_that_is_none_is_owed_one_refresh_and_goes_nowhere(
    watched: Redis, target: Service, publisher_of_target: httpx.Client, merchant: str, kind: str
) -> None:
    told = publisher_of_target.post("/notify", json={"merchant_id": merchant}).json()["id"]
    with commands(watched) as sent:
        for text in IDS[kind]:
            raw = text.encode()
            requests = [listen(f"merchant_id={merchant}&last_event_id={quote_from_bytes(raw)}")]
            if not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", raw):
                requests.append(listen(f"merchant_id={merchant}", b"Last-Event-ID: " + raw))
            for request in requests:
                with Wire(target.port, request) as wire:
                    answer = wire.answer()
                    assert answer is not None
                    assert answer.status == 200, text
                    (event,) = wire.events(merchant)
                assert event.id == told
                assert json.loads(event.data) == {"merchant_id": merchant, "reason": "missed"}

    read = f'"XREVRANGE" "sse_push:{{{merchant}}}" "+" "-" "COUNT" "1"'
    assert set(sent) == {read}


@pytest.mark.parametrize("byte", [b"\0", b"\x0b", b"\x1b", b"\x7f", b"\r", b"\n", b"\x01"])
@pytest.mark.parametrize("header", [b"Last-Event-ID", b"Origin", b"Authorization", b"X-Any"])
def test_a_header_with_a_control_character_is_no_http(
    target: Service, header: bytes, byte: bytes
) -> None:
    with Wire(target.port, listen("merchant_id=42", header + b": 1-1" + byte + b"2")) as wire:
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed()


def test_of_two_last_event_ids_the_first_counts(
    target: Service, publisher_of_target: httpx.Client, merchant: str
) -> None:
    told = publisher_of_target.post("/notify", json={"merchant_id": merchant}).json()["id"]
    request = listen(f"merchant_id={merchant}", f"Last-Event-ID: {told}", "Last-Event-ID: 1-1")

    with Wire(target.port, request) as wire:
        assert wire.answer() is not None
        (ready,) = wire.events(merchant, "ready")

    assert ready.id == told, "nothing is owed"


# -- merchants that are none (F-22)


MERCHANTS = [
    *(b"", b" ", b"42 ", b" 42", b"4 2", b"42\n", b"\n42", b"42\r\n", b"42\0", b"\0", b"42\t"),
    *(b"..", b"../42", b"42/43", b"/", b"%2e", b"{}", b"{42}", b"42}", b"}{", b"sse_push:{42}"),
    *(b"*", b"$", b"+", b"?", b"42*", b"[a-z]", b"42;43", b"42,43", b"42&", b'"42"', b"'42'"),
    *(b"\xff", b"\xc0\x8a", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbf\xbd", b"\xfe\xff"),
    *("４２".encode(), "é".encode(), "42\u2028".encode(), "\u202e42".encode(), "\ufeff42".encode()),
    *(b"x" * 65, b"x" * 10_000, b"1" * 5000, b"-" * 65, b"42\x1b[31m", b"<script>", b"\\x34"),
]
PERMITTED = {b".."}
"""Dots are characters of a name: it is never part of a path."""


@pytest.mark.parametrize("raw", [each for each in MERCHANTS if each not in PERMITTED], ids=repr)
def test_what_names_no_merchant_is_refused_before_any_command(
    watched: Redis, target: Service, raw: bytes
) -> None:
    quoted = quote_from_bytes(raw, safe="")
    as_json = json.dumps({"merchant_id": raw.decode("utf-8", "surrogateescape")}).encode()

    with commands(watched) as sent:
        assert outcome(asked(target, listen(f"merchant_id={quoted}"))) == MALFORMED
        with Wire(target.port, listen(f"merchant_id={quoted}", method="HEAD")) as wire:
            answer = wire.answer(to_head=True)
        assert answer is not None
        assert answer.status == 400
        assert outcome(asked(target, post(as_json))) == MALFORMED
        assert outcome(asked(target, post(f"merchant_id={quoted}".encode(), FORM))) == MALFORMED

    assert sent == []


VALUES = [b"null", b"true", b"false", b"42.0", b"1e2", b"-0.0", b"1e999", b"[]", b"{}", b'["42"]']
VALUES += [b"1" * 65, b"-" + b"1" * 64, b"1" * 4300, b'{"merchant_id":"42"}', b"[[42]]", b'""']


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:20]))
def test_a_value_that_names_no_merchant_is_refused_before_any_command(
    watched: Redis, target: Service, value: bytes
) -> None:
    with commands(watched) as sent:
        assert outcome(asked(target, post(b'{"merchant_id":%b}' % value))) == MALFORMED

    assert sent == []


def test_a_command_that_is_sent_is_seen(watched: Redis, target: Service, merchant: str) -> None:
    with commands(watched) as sent:
        assert asked(target, post(f'{{"merchant_id":"{merchant}"}}'.encode())).status == 200
        assert asked(target, post(b'{"merchant_id":".."}')).status == 200

    assert [command.split(" ")[0] for command in sent] == ['"XADD"', '"EXPIRE"'] * 2
    assert sent[2].startswith('"XADD" "sse_push:{..}" "MAXLEN"')


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
def test_json_is_read_strictly_and_soon(target: Service, name: str) -> None:
    body, expected = BODIES[name]
    began_at = time.monotonic()

    answer = asked(target, post(body))

    assert time.monotonic() - began_at < ANSWER_S
    assert (answer.status, "" if answer.status == 200 else answer.code) == expected
    assert len(answer.body) < 400, "an error quotes little"


@pytest.mark.parametrize("name", BODIES)
def test_a_revocation_is_read_as_strictly(watched: Redis, target: Service, name: str) -> None:
    """None of these is one, whatever it is elsewhere."""
    body, _ = BODIES[name]

    with commands(watched) as sent:
        answer = asked(target, post(body, path="/revoke"))

    assert outcome(answer) == MALFORMED
    assert len(answer.body) < 400
    assert sent == []


@pytest.mark.parametrize("raw", [each for each in MERCHANTS if each not in PERMITTED], ids=repr)
def test_nobody_is_revoked_who_is_no_merchant(watched: Redis, target: Service, raw: bytes) -> None:
    body = json.dumps({"merchant_id": raw.decode("utf-8", "surrogateescape")}).encode()

    with commands(watched) as sent:
        assert outcome(asked(target, post(body, path="/revoke"))) == MALFORMED
        assert outcome(asked(target, post(body, FORM, "/revoke"))) == (415, "unsupported")

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
def test_a_form_is_read_as_strictly(watched: Redis, target: Service, name: str) -> None:
    body, expected = FORMS[name]
    began_at = time.monotonic()

    with commands(watched) as sent:
        answer = asked(target, post(body, FORM))

    assert time.monotonic() - began_at < ANSWER_S
    assert outcome(answer) == expected
    assert len(answer.body) < 400
    assert sent == []


def test_a_form_of_many_fields_costs_no_more_than_its_bytes(target: Service) -> None:
    """Half a million fields, taken apart, took 0.2 s of the worker, and 40 MiB."""
    request = post(b"a=&" * 340_000 + b"a=", FORM)
    asked(target, request)
    before_s, before_kib = cpu_s(target.process.pid), resident_kib(target.process.pid)

    for _ in range(10):
        assert outcome(asked(target, request)) == MALFORMED

    assert cpu_s(target.process.pid) - before_s < 0.5 * SECOND
    assert resident_kib(target.process.pid) - before_kib < 8 << 10


# -- what is no HTTP: smuggling shapes, straight to the service


BODY = b'{"merchant_id":"smuggled"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = f"Content-Length: {len(BODY)}"

SMUGGLED: dict[str, tuple[list[str | bytes], bytes]] = {
    "both lengths": ([LENGTH, "Transfer-Encoding: chunked"], CHUNKED),
    "both lengths, turned": (["Transfer-Encoding: chunked", LENGTH], CHUNKED),
    "two lengths": ([LENGTH, "Content-Length: 1"], BODY),
    "the length twice": ([LENGTH, LENGTH], BODY),
    "a list of lengths": (["Content-Length: 26, 26"], BODY),
    "a negative length": (["Content-Length: -1"], BODY),
    "a length with plus": (["Content-Length: +26"], BODY),
    "a hexadecimal length": (["Content-Length: 0x1a"], BODY),
    "a length past 64 bits": (["Content-Length: 18446744073709551642"], BODY),
    "a length with a space": (["Content-Length: 2 6"], BODY),
    "an empty length": (["Content-Length:"], BODY),
    "a space before the colon": (["Content-Length : 26"], BODY),
    "obs-fold": (["X-Any: a", " b", LENGTH], BODY),
    "obs-fold of a tab": (["X-Any: a", "\tb", LENGTH], BODY),
    "a folded encoding": (["Transfer-Encoding:", " chunked"], CHUNKED),
    "chunked is not last": (["Transfer-Encoding: chunked, gzip"], CHUNKED),
    "chunked twice": (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], CHUNKED),
    "chunked in a list twice": (["Transfer-Encoding: chunked, chunked"], CHUNKED),
    "an unknown encoding": (["Transfer-Encoding: xchunked"], CHUNKED),
    "identity": (["Transfer-Encoding: identity"], BODY),
    "a space before that colon": (["Transfer-Encoding : chunked"], CHUNKED),
    "a bare LF": ([b"X-Any: a\nTransfer-Encoding: chunked"], CHUNKED),
    "a bare CR": ([b"X-Any: a\rTransfer-Encoding: chunked"], CHUNKED),
    "a NUL": ([b"X-Any: a\0b", LENGTH], BODY),
    "no colon": (["X-Any", LENGTH], BODY),
    "no name": ([": a", LENGTH], BODY),
    "a size that is none": (["Transfer-Encoding: chunked"], b"zz\r\n" + CHUNKED),
    "a negative size": (["Transfer-Encoding: chunked"], b"-1a" + CHUNKED[2:]),
    "a size with 0x": (["Transfer-Encoding: chunked"], b"0x" + CHUNKED),
    "a size past 64 bits": (["Transfer-Encoding: chunked"], b"1" + b"0" * 15 + CHUNKED),
    "a size too small": (["Transfer-Encoding: chunked"], b"19" + CHUNKED[2:]),
    "sizes that end with LF": (["Transfer-Encoding: chunked"], CHUNKED.replace(b"\r", b"")),
    "a trailer that frames": (
        ["Transfer-Encoding: chunked"],
        CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_whose_end_is_in_doubt_is_refused_and_its_connection_closed(
    watched: Redis, target: Service, name: str
) -> None:
    lines, body = SMUGGLED[name]
    head = ("POST /notify HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}")
    hidden = request_of("GET /healthz HTTP/1.1", "Host: test")

    with commands(watched) as sent, Wire(target.port) as wire:
        with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
            wire.send(request_of(*head, *lines, body=body) + hidden)
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed(), "what followed is not looked at"

    assert sent == []


NO_REQUESTS = {
    "nonsense": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method of nobody": b"REFRESH /events HTTP/1.1\r\nHost: test\r\n\r\n",
    "CONNECT": b"CONNECT evil.test:80 HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with NUL": b"GET /events\0 HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n",
    "a query of bytes": b"GET /events?merchant_id=\xff HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with a space": b"GET /eve nts HTTP/1.1\r\nHost: test\r\n\r\n",
    "a version of its own": b"GET /healthz HTTP/9.9\r\nHost: test\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_http_is_told_so_and_closed(target: Service, name: str) -> None:
    with Wire(target.port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(NO_REQUESTS[name])
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == NOT_HTTP
        assert wire.is_closed()


@pytest.mark.parametrize("is_in_path", [False, True], ids=["header", "path"])
def test_a_head_that_is_too_large_is_told_so_and_closed(
    target: Service, *, is_in_path: bool
) -> None:
    much = "1-" + "9" * 60_000
    query = f"merchant_id=42&last_event_id={much}" if is_in_path else "merchant_id=42"
    with Wire(target.port, listen(query, f"Last-Event-ID: {'' if is_in_path else much}")) as wire:
        answer = wire.answer()
        assert answer is not None
        assert outcome(answer) == (431, "headers_too_large")
        assert wire.is_closed()


ODD = {
    "a host that is a path": ("GET /healthz HTTP/1.1", "Host: evil/notify?", 200),
    "a path that is an address": ("GET http://evil/healthz HTTP/1.1", "Host: test", 200),
    "another method": ("TRACE /events HTTP/1.1", "Host: test", 405),
    "a path twice": ("GET //events?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with dots": ("GET /x/../events?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with a slash": ("GET /events/?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "an escaped slash": ("GET /%2fevents?merchant_id=42 HTTP/1.1", "Host: test", 404),
    "a path with an escaped NUL": ("GET /events%00 HTTP/1.1", "Host: test", 404),
    "an escaped query": ("GET /events%3Fmerchant_id=42 HTTP/1.1", "Host: test", 404),
    "a star": ("OPTIONS * HTTP/1.1", "Host: test", 404),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_http_is_answered_for_its_path(target: Service, name: str) -> None:
    request_line, host, status = ODD[name]

    assert asked(target, request_of(request_line, host)).status == status


FURTHER = {
    "a request": b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n",
    "another stream": b"GET /events?merchant_id=42 HTTP/1.1\r\nHost: test\r\n\r\n",
    "half a request": b"POST /notify HTTP/1.1\r\nContent-Le",
    "no request": b"\0\r\n\r\n",
}


@pytest.mark.parametrize("is_later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("name", FURTHER)
def test_what_a_streams_client_sends_after_its_request_changes_nothing(
    target: Service,
    publisher_of_target: httpx.Client,
    merchant: str,
    name: str,
    *,
    is_later: bool,
) -> None:
    """The next request took the stream's place: its end went unheard, and ended the worker."""
    publisher_of_target.post("/notify", json={"merchant_id": merchant})
    before = open_fds(target.process.pid)
    request = listen(f"merchant_id={merchant}")
    with Wire(target.port, request) as quiet:
        assert quiet.answer() is not None
        quiet.events(merchant)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                first = request if is_later else request + FURTHER[name]
                wire = stack.enter_context(Wire(target.port, first))
                answer = wire.answer()
                if name == "no request" and not is_later:
                    # The parser has seen it before the application has seen the request.
                    assert answer is None or answer.status in {200, 400}
                    continue
                assert answer is not None
                assert answer.headers["connection"] == "close"
                wire.events(merchant)
                if is_later:
                    wire.send(FURTHER[name])
                publisher_of_target.post("/notify", json={"merchant_id": merchant})
                wire.events(merchant, count=2)
        # Sooner than by a heartbeat, the first thing that would be written to them.
        gone = functools.partial(has_at_most, target.process.pid, before + 1)
        wait_for(gone, "the end of all but one", 5 * SECOND)
        for _ in range(3):
            told = publisher_of_target.post("/notify", json={"merchant_id": merchant}).json()
            quiet.refresh(merchant, told["id"])


def has_at_most(pid: int, files: int) -> bool:
    return open_fds(pid) <= files


def test_a_client_of_http_1_0_that_asks_on_is_known_to_have_gone(
    target: Service, publisher_of_target: httpx.Client, merchant: str
) -> None:
    """It gets its stream in the portable way, without chunks."""
    publisher_of_target.post("/notify", json={"merchant_id": merchant})
    before = open_fds(target.process.pid)
    request = f"GET /events?merchant_id={merchant} HTTP/1.0\r\n\r\n".encode()
    with Wire(target.port, request + FURTHER["a request"]) as wire:
        got = b""
        while b"event: refresh" not in got:
            got += wire.socket.recv(1 << 16)

    gone = functools.partial(has_at_most, target.process.pid, before)
    wait_for(gone, "its end", 5 * SECOND)


def test_methods_that_are_allowed_are_named_in_one_order(target: Service) -> None:
    request = listen("", method="DELETE")

    assert asked(target, request).headers["allow"] == "GET, HEAD"


# -- bodies that are huge, that lie about their size, or never end


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("path", ["/notify", "/events?merchant_id=42", "/healthz"])
def test_a_huge_body_is_refused_or_ignored_and_kept_nowhere(
    target: Service, path: str, *, is_chunked: bool
) -> None:
    """64 MiB; with SSE_PUSH_TEST_HUGE set, 1 GiB."""
    method = "POST" if path == "/notify" else "GET"
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {HUGE_BYTES}"
    piece = b" " * (1 << 20)
    piece = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
    head = [f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {KEY}", length]
    peak_kib = before_kib = resident_kib(target.process.pid)

    with Wire(target.port, request_of(*head)) as wire:
        wire.socket.settimeout(60 * SECOND)
        for _ in range(HUGE_BYTES >> 20):
            wire.send(piece)
            peak_kib = max(peak_kib, resident_kib(target.process.pid))
        wire.send(b"0\r\n\r\n" if is_chunked else b"")
        answer = wire.answer()

    assert answer is not None
    if path == "/notify":
        assert outcome(answer) == TOO_LARGE
    else:
        assert answer.status == 200
    assert peak_kib - before_kib < 4 << 10


def test_a_body_that_is_shorter_than_it_said_is_no_notification(
    watched: Redis, target: Service
) -> None:
    before = open_fds(target.process.pid)
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
    wait_for(lambda: open_fds(target.process.pid) <= before, "those connections to be closed")

    assert sent == []


# -- those who are slow, and those who hold connections


@pytest.mark.nginx
async def test_who_trickles_at_nginx_holds_no_one_up_and_reaches_nobody(
    watched: Redis, target: Service, merchant: str, tmp_path: Path
) -> None:
    """The shipped 10 s divided by 20. A header has so long in all; a body between two bytes."""
    shorter = {
        f"client_{part}_timeout 10s": f"client_{part}_timeout 500ms" for part in ("header", "body")
    }
    upstream = f"127.0.0.1:{target.port}"
    head = request_of("POST /notify HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", LENGTH)
    with (
        Nginx.start(tmp_path / "nginx", upstream, replacing(shorter)) as nginx,
        commands(watched) as sent,
        contextlib.ExitStack() as stack,
    ):
        before = open_fds(target.process.pid)
        in_header = [stack.enter_context(Wire(nginx.internal_port)) for _ in range(50)]
        in_body = [stack.enter_context(Wire(nginx.internal_port, head)) for _ in range(50)]
        stopped = [stack.enter_context(Wire(nginx.internal_port, head)) for _ in range(50)]
        began_at = time.monotonic()
        position, gone = 0, 0
        while gone < len(in_header):
            assert time.monotonic() - began_at < 5 * SECOND, "headers that take so long are ended"
            for wire in in_header:
                with contextlib.suppress(ConnectionError):
                    wire.send(head[position : position + 1])
            for wire in in_body:
                wire.send(BODY[position : position + 1])
            position += 1
            await until_next_byte()
            gone = sum(has_gone(wire) for wire in in_header)
            assert open_fds(target.process.pid) <= before + 1, "nginx asks when it has all"
        assert position < len(BODY) < len(head)
        assert all(not has_gone(wire) for wire in in_body)
        assert all(wire.answer() is None for wire in stopped)

        async with open_stream(nginx.url, merchant) as stream:
            await stream.next("refresh")
        for wire in in_body:
            wire.send(BODY[position:])
        answers = [wire.answer() for wire in in_body]

    assert [answer.status for answer in answers if answer is not None] == [200] * 50
    assert sum('"XADD"' in command for command in sent) == 50


async def until_next_byte() -> None:
    """Be slow, which is what this is about."""
    await until(iter([False] * 10 + [True]).__next__, "the next byte")


def has_gone(wire: Wire) -> bool:
    """Return whether the other end has closed, without waiting for it."""
    wire.socket.settimeout(0)
    try:
        return wire.socket.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        wire.socket.settimeout(ANSWER_S)


async def test_half_open_connections_up_to_the_file_limit_harm_nobody_who_is_there(
    redis: Redis, merchant: str, tmp_path: Path
) -> None:
    service = Service.start(tmp_path, redis.url, drain_s=SECOND, probe_interval_s=0.2)
    pid = service.process.pid
    publisher = Publisher(service.url)
    half = [*listen(f"merchant_id={merchant}").split(b"\r\n\r\n"), b"GET", b"\x16\x03", b""]
    try:
        async with open_stream(service.url, merchant) as stream:
            await publisher.notify(merchant)  # over a connection that stays
            await stream.next("refresh", 2)
            limit, before = open_fds(pid) + 50, open_fds(pid)
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
            with contextlib.ExitStack() as stack:
                for number in range(100):
                    wire = stack.enter_context(Wire(service.port))
                    with contextlib.suppress(ConnectionError):
                        wire.send(half[number % len(half)])
                await until(lambda: open_fds(pid) >= limit - 1, "every file to be taken")

                before_s, began_at = cpu_s(pid), time.monotonic()
                for count in range(3, 23):
                    entry_id = await publisher.notify(merchant)
                    assert (await stream.next("refresh", count)).id == entry_id
                share = (cpu_s(pid) - before_s) / (time.monotonic() - began_at)
            await until(lambda: open_fds(pid) <= before + 1, "files to be free again")
            assert (await publisher.client.get("/readyz")).status_code == 200
            async with open_stream(service.url, merchant) as another:
                await another.next("refresh")
    finally:
        await publisher.close()
        assert service.stop() == 0, service.log
    service.assert_no_errors()
    assert share < 0.9, "it does not turn in circles for want of a file"


# -- logs


LINE = re.compile(
    r"time=[0-9T:.-]+Z level=(debug|info|warning) logger=[a-z_.]+ message=[\x20-\x7e]+"
)
FORGED = b"time=2026-01-01T00:00:00.000Z level=error logger=sse_push message=forged"


def test_no_input_writes_a_line_of_a_log(watched: Redis, target: Service, merchant: str) -> None:
    evil = [b"\n" + FORGED, b"\r\n" + FORGED, b"\x1b[2J\x1b[31m" + FORGED, b"\0" + FORGED]
    evil += ["\u2028".encode() + FORGED, "\u202e".encode() + FORGED, b"\x85" + FORGED]
    evil += [
        "\x85".encode() + FORGED,
        b'" level=error message="' + FORGED,
        b"%(message)s%s" + FORGED,
    ]
    for raw in evil:
        quoted = quote_from_bytes(raw)
        body = json.dumps(
            {"merchant_id": raw.decode("latin-1"), "topic": raw.decode("latin-1")}
        ).encode()
        for request in (
            listen(f"merchant_id={quoted}"),
            listen(f"merchant_id={merchant}&last_event_id={quoted}&token={quoted}"),
            listen(f"merchant_id={merchant}&{quoted}={quoted}"),
            listen(f"merchant_id={merchant}", b"User-Agent: a" + raw),
            listen(f"merchant_id={merchant}", b"Last-Event-ID: a" + raw),
            listen(f"merchant_id={merchant}", b"Origin: https://a" + raw),
            listen(f"merchant_id={merchant}", b"X-Forwarded-For: a" + raw),
            listen(f"merchant_id={merchant}", b"Upgrade: a" + raw, b"Connection: upgrade"),
            request_of(f"GET /{quoted} HTTP/1.1", "Host: test"),
            request_of(f"GET /events?{quoted} HTTP/1.1", b"Host: a" + raw),
            request_of(b"GET /" + raw + b" HTTP/1.1", "Host: test"),
            post(body),
            post(b'{"merchant_id":"%b","topic":"%b"}' % (raw, raw)),
            post(b"merchant_id=" + quoted.encode() + b"&topic=" + quoted.encode(), FORM),
            post(BODY, "text/" + quoted),
        ):
            with Wire(target.port, request) as wire:
                answer = wire.answer()
                assert answer is not None
                assert answer.status in {200, 400, 403, 404, 415}, request
        watched.cli("XADD", f"sse_push:{{{merchant}}}", "*", "topic", quoted, "by", quoted)

    lines = target.log.split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert FORGED.decode()[-20:] not in target.log


# -- what Redis was sent


@contextmanager
def commands(redis: Redis) -> Iterator[list[str]]:
    """Collect the commands that Redis is sent meanwhile, but for those of the probe."""
    with socket.create_connection(("127.0.0.1", redis.port), timeout=5 * SECOND) as sock:
        monitor = sock.makefile("rb")
        sock.sendall(b"MONITOR\r\n")
        assert monitor.readline() == b"+OK\r\n"
        sent: list[str] = []
        yield sent
        mark = f"end of {threading.get_native_id()}-{time.monotonic_ns()}"
        subprocess.run(
            [program("redis-cli", "valkey-cli"), "-p", str(redis.port), "ECHO", mark],
            check=True,
            capture_output=True,
        )
        while mark not in (line := monitor.readline().decode()):
            command = line.rstrip().partition("] ")[2]
            if "sse_push:probe:" not in command and command != '"TIME"':
                sent.append(command)


@pytest.fixture
def publisher_of_target(target: Service) -> Generator[httpx.Client]:
    headers: dict[str, Any] = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=target.url, headers=headers, timeout=ANSWER_S) as client:
        yield client
