from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError

import pytest

from sse_push.errors import (
    InvalidEntryId,
    InvalidMerchantId,
    InvalidNotification,
    InvalidRevocation,
    TooLarge,
)
from sse_push.notification import (
    Change,
    EntryId,
    EventId,
    Notification,
    is_one_history,
    parse_json,
    parse_merchant_id,
    read_object,
)

LIMIT_BYTES = 100
GREATEST = 2**64 - 1
NAME = "1 to 64 characters of A-Z a-z 0-9 . _ : -"

LONGEST_ERROR = 200
"""In characters: an error fits on one or two lines, whatever the value."""

NOT_NAMES = [
    "",
    "x" * 65,
    "a b",
    "42\n",
    "\n42",
    "a/b",
    "a}b",
    'a"b',
    "a\0b",
    "é",
    "\u0664\u0662",
    "\ud800",
]


def checked(**fields: object) -> Notification:
    return Notification.from_value({"merchant_id": "42", **fields}, data_limit_bytes=LIMIT_BYTES)


def read(fields: Mapping[bytes, bytes]) -> Notification:
    return Notification.from_fields("42", fields, data_limit_bytes=LIMIT_BYTES)


def nested(depth: int) -> object:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


# -- entry IDs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1712000000000-0", (1712000000000, 0)),
        ("0-1", (0, 1)),
        ("1-0", (1, 0)),
        ("007-08", (7, 8)),
        (f"{GREATEST}-{GREATEST}", (GREATEST, GREATEST)),
    ],
)
def test_an_entry_id_is_two_numbers(text: str, expected: tuple[int, int]) -> None:
    assert EntryId.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-1-1",
        "1-*",
        "*",
        "$",
        "+",
        "(1-1",
        " 1-1",
        "1-1 ",
        "1-1\n",
        "\n1-1",
        "1\n-1",
        "1-1\0",
        "-1-1",
        "1--1",
        "+1-1",
        "1_0-1",
        "1.0-1",
        "0x1-1",
        "1\u20131",
        "\u0661-\u0662",
        "\u00b2-1",
        "\uff11-\uff12",
        "\ud800",
        f"{'0' * 21}-1",
        f"1-{'9' * 21}",
        "9" * 5000 + "-1",
    ],
)
def test_another_text_is_not_an_entry_id(text: str) -> None:
    with pytest.raises(InvalidEntryId) as caught:
        EntryId.parse(text)

    assert str(caught.value) == f"expected <ms>-<seq>, got {text[:64]!r}"
    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize(
    "text", ["0-0", "00-000", f"{2**64}-0", f"0-{2**64}", f"{'9' * 20}-{'9' * 20}"]
)
def test_an_id_that_no_entry_can_have_is_refused(text: str) -> None:
    with pytest.raises(InvalidEntryId) as caught:
        EntryId.parse(text)

    assert str(caught.value) == f"expected 0-1 to {GREATEST}-{GREATEST}, got {text!r}"


def test_entry_ids_compare_as_numbers_and_not_as_text() -> None:
    texts = ["9-0", "10-0", "10-2", "10-10", "100-1"]

    assert sorted(map(EntryId.parse, reversed(texts))) == [EntryId.parse(text) for text in texts]
    assert EntryId.parse("10-0") > EntryId.parse("9-0")


@pytest.mark.parametrize("history", ["", "9f86d081"])
def test_an_event_id_is_an_entry_id_and_maybe_the_name_of_a_history(history: str) -> None:
    text = f"1712000000000-7.{history}" if history else "1712000000000-7"
    event_id = EventId(EntryId(1712000000000, 7), history)

    assert EventId.parse(text) == event_id
    assert str(event_id) == text


@pytest.mark.parametrize("entry_id", ["7-1", "7", ""])
@pytest.mark.parametrize(
    "rest", [".", ".9f86d08", ".9f86d0811", ".9F86D081", ".9f86d08g", ".9f86d081.", ".9f86d081\n"]
)
def test_another_text_is_not_an_event_id(entry_id: str, rest: str) -> None:
    with pytest.raises(InvalidEntryId) as caught:
        EventId.parse(entry_id + rest)
    assert str(caught.value).startswith("expected <ms>-<seq>.<history>, got ")
    assert len(str(caught.value)) <= LONGEST_ERROR


def test_an_event_id_without_an_entry_id_is_refused() -> None:
    with pytest.raises(InvalidEntryId, match=r"^expected <ms>-<seq>, got '7'$"):
        EventId.parse("7.9f86d081")


@pytest.mark.parametrize(
    ("name", "other", "is_one"), [("a", "a", True), ("a", "b", False), ("", "", False)]
)
def test_two_ids_are_of_one_history_only_if_both_name_it(
    name: str, other: str, *, is_one: bool
) -> None:
    assert is_one_history(name, other) is is_one
    assert is_one_history(other, name) is is_one


def test_an_entry_id_is_written_as_redis_writes_it() -> None:
    assert str(EntryId(1712000000000, 7)) == "1712000000000-7"
    assert f"{EntryId.parse('007-08')}" == "7-8"


# -- merchants


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("42", "42"),
        ("a", "a"),
        ("x" * 64, "x" * 64),
        ("Shop.7_b:c-d", "Shop.7_b:c-d"),
        (42, "42"),
        (0, "0"),
        (-7, "-7"),
        (10**63, "1" + "0" * 63),
    ],
)
def test_a_merchant_is_named_by_a_text_or_an_integer(value: object, expected: str) -> None:
    assert parse_merchant_id(value) == expected


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (True, "true (boolean)"),
        (False, "false (boolean)"),
        (42.0, "42.0 (number)"),
        (float("inf"), "inf (number)"),
        (None, "none"),
        (10**64, "an integer of more than 64 digits"),
        (-(10**63), "'-1" + "0" * 63 + "' (string)"),
        (["42"], "a JSON array"),
        ({"id": 42}, "a JSON object"),
        *[(text, f"{text!a} (string)") for text in NOT_NAMES],
        ("x" * 10**6, "'" + "x" * 79 + " (string)"),
    ],
)
def test_another_value_is_not_a_merchant_id(value: object, got: str) -> None:
    with pytest.raises(InvalidMerchantId) as caught:
        parse_merchant_id(value)

    assert str(caught.value) == f"merchant_id: expected {NAME}, or an integer; got {got}"
    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("field", ["merchant_id", "topic", "by", "data", None])
def test_an_integer_that_python_does_not_write_out_is_refused(field: str | None, sign: int) -> None:
    """Not parametrized by the number: pytest would call ``str``, which refuses 4 300 digits."""
    number = sign * 10**5000
    value: object = number if field is None else {"merchant_id": "42", field: number}

    with pytest.raises(InvalidNotification) as caught:
        Notification.from_value(value, data_limit_bytes=LIMIT_BYTES)

    got = "expected finite" if field == "data" else "got an integer of more than 64 digits"
    assert got in str(caught.value)


# -- notifications, as a backend posts them


def test_a_notification_needs_only_its_merchant() -> None:
    assert checked() == Notification("42")


def test_a_notification_has_the_fields_of_its_object() -> None:
    notification = checked(merchant_id=7, topic="seats", data={"seat": "C7"}, by="Ana, tab 1")

    assert notification == Notification("7", "seats", '{"seat":"C7"}', "Ana, tab 1")


def test_a_field_that_is_null_counts_as_absent() -> None:
    assert checked(topic=None, data=None, by=None) == Notification("42")


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([], "a JSON array"),
        (None, "null"),
        ("42", "'42' (string)"),
        (42, "42 (number)"),
        ("\n" * 10**6, "'" + r"\n" * 39 + "\\ (string)"),
    ],
)
def test_a_notification_is_an_object(value: object, got: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        Notification.from_value(value, data_limit_bytes=LIMIT_BYTES)

    assert str(caught.value) == f"expected a JSON object with merchant_id, got {got}"


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("message", "'message'"),
        ("merchantId", "'merchantId': did you mean merchant_id?"),
        ("Topic", "'Topic': did you mean topic?"),
        ("", "''"),
        ("\ud800", r"'\ud800'"),
        ("x" * 10**6, "'" + "x" * 79 + ""),
    ],
)
def test_the_error_names_an_unknown_field(name: str, got: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked(**{name: 1})

    assert str(caught.value) == f"expected only the fields merchant_id, topic, data, by, got {got}"
    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize("value", [{}, {"topic": "seats"}, {"merchant_id": None}])
def test_a_notification_without_a_merchant_is_refused(value: object) -> None:
    with pytest.raises(InvalidNotification) as caught:
        Notification.from_value(value, data_limit_bytes=LIMIT_BYTES)

    assert str(caught.value) == f"merchant_id: expected {NAME}, or an integer; got none"


@pytest.mark.parametrize("value", [[], {}, {"merchant_id": "4 2"}, {"merchant_id": "42", "x": 1}])
def test_an_object_is_refused_by_the_error_of_the_caller(value: object) -> None:
    with pytest.raises(InvalidRevocation):
        read_object(value, ("merchant_id", "jti"), InvalidRevocation)


def test_an_object_is_its_merchant_and_the_other_fields_that_are_not_null() -> None:
    value = {"jti": "t", "merchant_id": 42, "sub": None}

    assert read_object(value, ("merchant_id", "jti", "sub"), InvalidRevocation) == (
        "42",
        {"jti": "t"},
    )


def test_a_notification_for_an_invalid_merchant_is_refused() -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked(merchant_id=4.2)

    assert str(caught.value) == (f"merchant_id: expected {NAME}, or an integer; got 4.2 (number)")


@pytest.mark.parametrize("topic", [*NOT_NAMES, 7, True, [], {}, "x" * 10**6])
def test_a_topic_is_a_name(topic: object) -> None:
    with pytest.raises(InvalidNotification, match=r"^topic: expected 1 to 64 characters") as caught:
        checked(topic=topic)

    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize(
    "by", ["x", "x" * 128, "线" * 128, "Ana & Bo <3", '"\\"', "\U0001f600", "آنا\u200c\u200f"]
)
def test_a_sender_may_be_named_in_any_script(by: str) -> None:
    assert checked(by=by).by == by


@pytest.mark.parametrize(
    "by",
    [
        *("", "x" * 129, "a\nb", "a\r", "a\0", "\x7f", "\x85", "\x9f", "\ud800", "a\u2028b"),
        *("\u2029", "\u202a", "a\u202eb", "\u2066", "\u2069", 7, True, [], {}),
    ],
)
def test_a_sender_is_printable_text(by: object) -> None:
    with pytest.raises(InvalidNotification, match=r"^by: expected 1 to 128 printable") as caught:
        checked(by=by)

    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (False, "false"),
        (0, "0"),
        ("", '""'),
        ([], "[]"),
        ({}, "{}"),
        ([1, None, "a b"], '[1,null,"a b"]'),
        ({"a": {"b": 1.5}}, '{"a":{"b":1.5}}'),
        ("线\n\r\x0b", '"线\\n\\r\\u000b"'),
        ("线\x85\u2028\u2029", '"线\\u0085\\u2028\\u2029"'),
        ("\\u2028", '"\\\\u2028"'),
    ],
)
def test_data_becomes_compact_json_on_one_line(data: object, expected: str) -> None:
    text = checked(data=data).data

    assert text == expected
    assert json.loads(text) == data
    assert text.splitlines() == [text]


@pytest.mark.parametrize("character", ["x", "é", "线", "\U0001f600"])
def test_data_is_limited_in_bytes_and_not_in_characters(character: str) -> None:
    room_bytes = LIMIT_BYTES - len('""')
    size_bytes = len(character.encode())
    fits = character * (room_bytes // size_bytes) + "x" * (room_bytes % size_bytes)

    assert checked(data=fits).data == f'"{fits}"'
    with pytest.raises(TooLarge) as caught:
        checked(data=fits + "x")

    assert str(caught.value) == f"data: expected at most {LIMIT_BYTES} bytes, got 101"


@pytest.mark.parametrize("data", [float("inf"), float("-inf"), float("nan"), {"a": [1e999]}])
def test_data_with_a_number_that_json_lacks_is_refused(data: object) -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked(data=data)

    assert str(caught.value) == "data: expected finite numbers, got one that is not"


@pytest.mark.parametrize("data", ["\ud800", "\udfff\ud800", {"\udc00": 1}, ["a\udc80b"]])
def test_data_with_half_of_a_surrogate_pair_is_refused(data: object) -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked(data=data)

    assert str(caught.value) == "data: expected Unicode text, got half a surrogate pair"


def test_data_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked(data=nested(100_000))

    assert str(caught.value) == "data: expected JSON, got one nested too deeply"


def test_a_notification_does_not_change() -> None:
    notification = checked()

    with pytest.raises(FrozenInstanceError):
        notification.topic = "seats"  # type: ignore[misc]  # the mistake that is meant


# -- JSON


def test_a_json_text_is_decoded() -> None:
    body = ' {"a": [1, 1.5, "线", "\\ud83d\\ude00", true, null]}\r\n'.encode()

    assert parse_json(body) == {"a": [1, 1.5, "线", "\U0001f600", True, None]}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "expected JSON, got expecting value at character 0"),
        (b"{} x", "expected JSON, got extra data at character 3"),
        (b"{'a': 1}", "expected JSON, got expecting property name enclosed in double quotes at "),
        (b"merchant_id=42", "expected JSON, got expecting value at character 0"),
        (b'"a\nb"', "expected JSON, got invalid control character at at character 2"),
        (b"\xef\xbb\xbf{}", "expected JSON, got unexpected utf-8 bom"),
        (b'{"a":"\xff"}', "expected UTF-8, got a wrong byte at 6"),
        (b"\xed\xa0\x80", "expected UTF-8, got a wrong byte at 0"),
        ('{"a":1}'.encode("utf-16"), "expected UTF-8, got a wrong byte at 0"),
        (b"NaN", "expected JSON, got NaN, which is not JSON"),
        (b"[Infinity]", "expected JSON, got Infinity, which is not JSON"),
        (b'{"a":-Infinity}', "expected JSON, got -Infinity, which is not JSON"),
        (b'{"a":1,"b":2,"a":1}', "expected each name once in a JSON object, got one twice"),
        (b'[{"a":{"b":1,"\\u0062":1}}]', "expected each name once in a JSON object, got one "),
        (b"[" * 100_000, "expected JSON, got one nested too deeply"),
        (b'{"a":' * 100_000, "expected JSON, got one nested too deeply"),
        (b"1" * 5000, "expected JSON, got a number with too many digits"),
        (b'{"a":-' + b"9" * 5000 + b"}", "expected JSON, got a number with too many digits"),
    ],
)
def test_a_text_that_is_not_json_is_refused(body: bytes, error: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse_json(body)

    assert str(caught.value).startswith(error)
    assert len(str(caught.value)) <= LONGEST_ERROR


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 5000 + b".0"])
def test_a_number_that_is_too_great_is_found_in_data(number: bytes) -> None:
    with pytest.raises(InvalidNotification, match=r"^data: expected finite numbers"):
        checked(data=parse_json(number))


def test_half_a_surrogate_pair_in_an_escape_is_found_in_data() -> None:
    with pytest.raises(InvalidNotification, match=r"^data: expected Unicode text"):
        checked(data=parse_json(b'{"a":"\\ud800"}'))


# -- the fields of a stream entry


@pytest.mark.parametrize(
    "notification",
    [
        Notification("42", "seats", '{"seat":"C7"}', "tab-1"),
        Notification("42", topic="seats"),
        Notification("42", data="[]"),
        Notification("42", by="线"),
        Notification("42"),
    ],
)
def test_a_notification_is_the_same_after_its_way_through_the_stream(
    notification: Notification,
) -> None:
    fields = notification.to_fields()

    assert fields != {}  # Redis refuses an entry without fields
    assert read({name.encode(): text.encode() for name, text in fields.items()}) == notification


def test_a_notification_is_stored_with_the_fields_that_it_has() -> None:
    assert Notification("42", "seats", "[]", "tab-1").to_fields() == {
        "topic": "seats",
        "data": "[]",
        "by": "tab-1",
    }
    assert Notification("42", data="1").to_fields() == {"data": "1"}
    assert Notification("42").to_fields() == {"topic": ""}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"colour": b"red", b"": b"", b"\xff": b"\xff"},
        {b"merchant_id": b"43"},
        {b"TOPIC": b"seats"},
        {b"topic": b""},
        {b"topic": b"a b"},
        {b"topic": b"seats\n"},
        {b"topic": b"\xff"},
        {b"topic": b"x" * 65},
        {b"by": b""},
        {b"by": b"a\nb"},
        {b"by": b"\xff"},
        {b"by": b"x" * 129},
        {b"data": b""},
        {b"data": b"null"},
        {b"data": b"nonsense"},
        {b"data": b"\xff"},
        {b"data": b"NaN"},
        {b"data": b"1e999"},
        {b"data": b'"\\ud800"'},
        {b"data": b'{"a":1,"a":2}'},
        {b"data": b"[" * LIMIT_BYTES},
        {b"data": b'"' + b"x" * (LIMIT_BYTES - 1) + b'"'},
        {b"data": b" " * LIMIT_BYTES + b"1"},
    ],
)
def test_a_field_that_is_not_of_its_form_counts_as_absent(fields: dict[bytes, bytes]) -> None:
    assert read(fields) == Notification("42")


def test_valid_fields_of_an_entry_are_kept_beside_malformed_ones() -> None:
    fields = {b"topic": b"seats", b"data": b"{nonsense", b"by": b"tab-1", b"colour": b"red"}

    assert read(fields) == Notification("42", "seats", None, "tab-1")


def test_data_that_a_backend_wrote_over_several_lines_becomes_one() -> None:
    assert read({b"data": b'{\r\n  "a": [1, 2]\n}'}).data == '{"a":[1,2]}'


def test_data_that_is_just_within_its_limit_is_kept() -> None:
    raw = b'"' + b"x" * (LIMIT_BYTES - 2) + b'"'

    assert read({b"data": raw}).data == raw.decode()


def test_data_that_is_longer_once_it_is_compact_is_left_out() -> None:
    # 1E99 is written out as 1e+99: within the limit as it came, but not as it would go out.
    raw = b"[" + b",".join([b"1E99"] * 19) + b"]"

    assert len(raw) <= LIMIT_BYTES
    assert read({b"data": raw}) == Notification("42")


# -- changes


def test_a_change_is_not_a_resync_by_default() -> None:
    assert Change("42", None) == Change("42", None, entries=None, is_resync=False)
