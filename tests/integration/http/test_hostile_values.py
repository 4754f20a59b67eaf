"""Hostile values: characters in names, last event IDs, merchants."""

from __future__ import annotations

import json
import re
from urllib.parse import quote_from_bytes

import httpx2
import pytest

from sse_push.stream.reads import NEW_ENTRIES
from tests.harness.ids import in_redis
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.wire import Wire
from tests.integration.http.requests import (
    FORM,
    MALFORMED,
    NOT_HTTP,
    asked,
    commands,
    listen,
    outcome,
    post,
)

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
def test_a_name_with_a_character_that_could_end_or_turn_a_line_is_refused(
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
def test_an_entry_that_a_stranger_has_added_forges_no_line(
    watched: Redis, target: Service, merchant: str, name: str
) -> None:
    """Without NUL and half a pair, which no argument of ``redis-cli`` can contain."""
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

    assert in_redis(event.id) == entry_id
    told = json.loads(event.data)
    assert told.pop("data", f"a{character}b") == f"a{character}b"
    assert told == {"merchant_id": merchant}


IDS = {
    "a word of Redis": ["$", "+", "-", ">", "*", "0", "0-0", "(1-1", "1-*", "-1-1", "1-1-1"],
    "no number": ["1", "1-", "-1", "1_0-1", "0x1-1", "1e3-1", "٣-١", "１-1", "²-1"],
    "too great": [f"{2**64}-0", f"1-{2**64}", "9" * 400 + "-1", "9" * 5000 + "-1"],
    "8 KB": ["1-" + "9" * 8_000],
    "more than an ID": ["1-1\r\nid: 2-2", "1-1\n", "\n1-1", "1-1\0", "1-1\x85", "1-1\u2028x"],
    "of no history that there is": ["1-1.00000000", "1-1.", ".00000000", "1-1.00000000.00000000"],
    "of something that is no history": [
        "1-1.0000000g",
        "1-1.000000000",
        "1-1.００００００００",
        "1-1.\n",
    ],
    "turned": ["\u202e1-1", "1-1\u2066", "\x1b[31m1-1", "\ufeff1-1"],
}


@pytest.mark.parametrize("kind", IDS)
def test_an_invalid_last_event_id_gets_one_refresh_and_reaches_no_command(
    watched: Redis, target: Service, publisher_of_target: httpx2.Client, merchant: str, kind: str
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
    # Once in 30 s every live stream is read again, from the newest ID that the process knows.
    again = f'"XRANGE" "sse_push:{{{merchant}}}" "{in_redis(told)}" "+" "COUNT" "{NEW_ENTRIES + 1}"'
    assert set(sent) - {again} == {read}


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


def test_the_first_of_two_last_event_ids_counts(
    target: Service, publisher_of_target: httpx2.Client, merchant: str
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
"""A dot is a character of a name, since a name is never part of a path."""


@pytest.mark.parametrize("raw", [each for each in MERCHANTS if each not in PERMITTED], ids=repr)
def test_an_invalid_merchant_is_refused_before_any_command(
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


@pytest.mark.parametrize("raw", [each for each in MERCHANTS if each not in PERMITTED], ids=repr)
def test_a_revocation_of_an_invalid_merchant_is_refused_before_any_command(
    watched: Redis, target: Service, raw: bytes
) -> None:
    body = json.dumps({"merchant_id": raw.decode("utf-8", "surrogateescape")}).encode()

    with commands(watched) as sent:
        assert outcome(asked(target, post(body, path="/revoke"))) == MALFORMED
        assert outcome(asked(target, post(body, FORM, "/revoke"))) == (415, "unsupported")

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


def test_a_command_that_reaches_redis_is_seen_by_these_tests(
    watched: Redis, target: Service, merchant: str
) -> None:
    with commands(watched) as sent:
        assert asked(target, post(f'{{"merchant_id":"{merchant}"}}'.encode())).status == 200
        assert asked(target, post(b'{"merchant_id":".."}')).status == 200

    assert [command.split(" ")[0] for command in sent] == ['"XADD"', '"EXPIRE"', '"PUBLISH"'] * 2
    assert sent[3].startswith('"XADD" "sse_push:{..}" "MAXLEN"')
