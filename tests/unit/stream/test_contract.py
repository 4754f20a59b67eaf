from __future__ import annotations

from collections.abc import Sequence

import pytest

from sse_push.access.revocation import Revocation
from sse_push.errors import InvalidMerchantId
from sse_push.notification import Entry, EntryId, Notification, parse_merchant_id
from sse_push.stream.contract import (
    RevokeCommands,
    append_command,
    is_planted,
    parse_entries,
    parse_entry_id,
    parse_evicted_keys,
    parse_ids,
    parse_revocations,
    plant_commands,
    probe_commands,
    read_command,
    read_revocations_command,
)
from sse_push.stream.keys import probe_merchant
from sse_push.stream.reads import REVOCATIONS_MAX, Read, ReadFrom, RevocationEntry
from sse_push.stream.replies import ErrorReply
from tests.harness.keys import REVOCATIONS_KEY, stream_key

GREATEST = 2**64 - 1


def test_the_stream_of_a_process_is_in_the_rights_to_streams_and_of_no_merchant() -> None:
    merchant_id = probe_merchant("0123")
    add, expire = probe_commands(stream_key(merchant_id))

    assert add[:4] == ("XADD", "sse_push:{~0123}", "MAXLEN", 4)
    assert expire == ("EXPIRE", "sse_push:{~0123}", 60)
    with pytest.raises(InvalidMerchantId):
        parse_merchant_id(merchant_id)


def test_the_ids_of_a_reply_are_in_its_order_and_those_of_an_error_are_none() -> None:
    assert parse_ids([(b"1-2", []), (b"3-4", [b"a", b"b"])]) == [EntryId(1, 2), EntryId(3, 4)]
    assert parse_ids(ErrorReply("WRONGTYPE")) == []


@pytest.mark.parametrize(
    ("read", "command"),
    [
        (Read("42"), ("XREVRANGE", "sse_push:{42}", "+", "-", "COUNT", 1)),
        (Read("42", EntryId(7, 1)), ("XRANGE", "sse_push:{42}", "7-1", "+", "COUNT", 33)),
        (
            Read("42", EntryId(7, 1), EntryId(9, 0)),
            ("XRANGE", "sse_push:{42}", "7-1", "9-0", "COUNT", 33),
        ),
    ],
)
def test_a_read_is_one_command(read: Read, command: tuple[object, ...]) -> None:
    assert read_command(stream_key(read.merchant_id), read) == command


@pytest.mark.parametrize(
    ("notification", "fields"),
    [
        (Notification("42"), ("topic", "")),
        (Notification("42", "seats"), ("topic", "seats")),
        (
            Notification("42", "seats", '{"a":1}', "tab-1"),
            ("topic", "seats", "data", '{"a":1}', "by", "tab-1"),
        ),
    ],
)
def test_a_notification_is_added_and_old_entries_are_trimmed(
    notification: Notification, fields: tuple[str, ...]
) -> None:
    command = append_command(stream_key("42"), notification, max_entries=100, begins=True)
    following = append_command(stream_key("42"), notification, max_entries=100, begins=False)

    assert command == ("XADD", "sse_push:{42}", "MAXLEN", "~", 100, "*", *fields)
    assert following == (*command[:2], "NOMKSTREAM", *command[2:])


@pytest.mark.parametrize(
    ("raw", "entry_id"),
    [
        (b"1712000000000-0", EntryId(1712000000000, 0)),
        (b"0-1", EntryId(0, 1)),
        (b"18446744073709551615-18446744073709551615", EntryId(GREATEST, GREATEST)),
    ],
)
def test_an_id_of_redis_is_two_numbers(raw: bytes, entry_id: EntryId) -> None:
    assert parse_entry_id(raw) == entry_id


def stripped(entries: Sequence[Entry | RevocationEntry] | None) -> list[tuple[object, ...]]:
    """Return the entries without their fingerprints, which differ from process to process."""
    assert entries is not None
    return [entry[:2] for entry in entries]


def test_a_reply_is_parsed_into_its_entries() -> None:
    reply = [
        [b"7-0", [b"topic", b"seats", b"data", b'{"a": 1}', b"by", b"tab-1"]],
        [b"7-1", [b"topic", b""]],
        [b"10-0", [b"colour", b"red", b"data", b"nonsense"]],
        [b"11-0", [b"topic", b"old", b"topic", b"new"]],
    ]

    assert stripped(parse_entries("42", reply, data_limit_bytes=100)) == [
        (EntryId(7, 0), Notification("42", "seats", '{"a":1}', "tab-1")),
        (EntryId(7, 1), Notification("42")),
        (EntryId(10, 0), Notification("42")),
        (EntryId(11, 0), Notification("42", "new")),
    ]


def test_data_over_the_limit_is_left_out() -> None:
    reply = [[b"7-0", [b"topic", b"seats", b"data", b'"0123456789"']]]

    assert stripped(parse_entries("42", reply, data_limit_bytes=11)) == [
        (EntryId(7, 0), Notification("42", "seats"))
    ]


@pytest.mark.parametrize(
    "others",
    [[b"topic", b"b"], [b"topic", b"a", b"x", b""], [b"TOPIC", b"a"], [b"topica", b""]],
)
def test_entries_of_the_same_fields_only_have_one_fingerprint(others: list[bytes]) -> None:
    reply = [[b"7-0", [b"topic", b"a"]], [b"7-0", [b"topic", b"a"]], [b"7-0", others]]

    first, again, other = parse_entries("42", reply, data_limit_bytes=100) or []

    assert first == again
    assert first.fingerprint != other.fingerprint


def test_an_empty_reply_has_no_entries() -> None:
    assert parse_entries("42", [], data_limit_bytes=100) == []


def test_an_error_reply_has_no_entries() -> None:
    error = ErrorReply("WRONGTYPE Operation against a key")

    assert parse_entries("42", error, data_limit_bytes=100) is None


# -- revocations


T = "e3b98a4da31a127d4bde6e43033f66ba"
U = "0bfe935e70c321c7ca3afc75ce0d0ca2"
"""The hashes of the claims "t" and "u", written out: other versions of the service read them."""


@pytest.mark.parametrize(
    ("revocation", "fields"),
    [
        (Revocation("42"), ("merchant_id", "42")),
        (Revocation.naming("42", "t"), ("merchant_id", "42", "jti_hash", T)),
        (Revocation.naming("42", None, "u"), ("merchant_id", "42", "sub_hash", U)),
        (Revocation.naming("42", "t", "u"), ("merchant_id", "42", "jti_hash", T, "sub_hash", U)),
    ],
)
def test_a_revocation_is_added_and_expired_ones_are_trimmed(
    revocation: Revocation, fields: tuple[str, ...]
) -> None:
    add, expire = RevokeCommands(REVOCATIONS_KEY, 3610).of(revocation, now_s=5000.1239)

    assert add == ("XADD", REVOCATIONS_KEY, "MINID", "~", 1_390_123, "*", *fields)
    assert expire == ("EXPIRE", REVOCATIONS_KEY, 3670)


def test_revocations_are_not_trimmed_if_the_time_of_redis_is_unknown() -> None:
    add, _ = RevokeCommands(REVOCATIONS_KEY, 3610).of(Revocation("42"), now_s=0)

    assert add[:5] == ("XADD", REVOCATIONS_KEY, "MINID", "~", 0)


def test_every_second_revocation_trims_those_that_are_too_many() -> None:
    commands = RevokeCommands(REVOCATIONS_KEY, 3610)
    adds = [commands.of(Revocation("42"), now_s=5000)[0] for _ in range(4)]

    assert [add[2:5] for add in adds] == [
        ("MINID", "~", 1_390_000),
        ("MAXLEN", "~", REVOCATIONS_MAX),
    ] * 2


@pytest.mark.parametrize(("start", "text"), [(None, "-"), (EntryId(7, 1), "7-1")])
def test_revocations_are_read_from_an_entry_or_from_the_oldest(
    start: EntryId | None, text: str
) -> None:
    assert read_revocations_command(REVOCATIONS_KEY, ReadFrom(start)) == (
        *("XRANGE", REVOCATIONS_KEY, text, "+"),
        *("COUNT", 64),
    )


def test_a_reply_is_parsed_into_its_revocations_and_a_malformed_one_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reply = [
        [b"7-0", [b"merchant_id", b"42", b"jti", b"t", b"sub", b"u", b"more", b"\xff"]],
        [b"7-1", [b"jti", b"t"]],
        [b"8-0", [b"merchant_id", b"43"]],
    ]

    assert stripped(parse_revocations(reply)) == [
        (EntryId(7, 0), Revocation.naming("42", "t", "u")),
        (EntryId(7, 1), None),
        (EntryId(8, 0), Revocation("43")),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "malformed revocation ignored "
        "cause=merchant_id: expected 1 to 64 characters of A-Z a-z 0-9 . _ : -, or an integer; "
        "got none"
    ]
    assert parse_revocations([]) == []
    assert parse_revocations(ErrorReply("WRONGTYPE")) is None


# -- planted entries


@pytest.mark.parametrize("has_scripts", [True, False])
def test_a_plant_is_recognized_by_its_fields(*, has_scripts: bool) -> None:
    command = plant_commands(stream_key("42"), lifetime_s=10, has_scripts=has_scripts)[0]
    value = str(command[4]).encode()

    assert is_planted([b"sse_push:planted", value])


@pytest.mark.parametrize(
    "fields",
    [
        [b"sse_push:planted", b""],
        [b"sse_push:planted", b"0123456789abcde"],
        [b"sse_push:planted", b"0123456789abcdef0"],
        [b"sse_push:planted", b"0123456789ABCDEF"],
        [b"sse_push:planted", b"0123456789abcdef", b"topic", b"seats"],
        [b"sse_push:planted", b"0123456789abcdef", b"x", b""],
        [b"topic", b"seats", b"sse_push:planted", b"0123456789abcdef"],
        [b"topic", b"0123456789abcdef"],
        [b"topic", b""],
    ],
)
def test_an_entry_with_anything_beside_says_something(fields: list[bytes]) -> None:
    (entry,) = parse_entries("42", [[b"7-0", fields]], data_limit_bytes=100) or []

    assert not is_planted(fields)
    assert not entry.is_planted


def test_a_planted_entry_is_parsed_as_one() -> None:
    reply = [[b"7-0", [b"sse_push:planted", b"0123456789abcdef"]]]
    (entry,) = parse_entries("42", reply, data_limit_bytes=100) or []

    assert entry.is_planted


@pytest.mark.parametrize(
    ("reply", "evicted"),
    [
        (b"# Stats\r\nevicted_keys:12\r\nx:1\r\n", 12),
        (b"# Stats\r\nold_evicted_keys:12\r\n", None),
        (ErrorReply("NOPERM"), None),
    ],
)
def test_the_number_of_evictions_is_read_from_the_statistics(
    reply: object, evicted: int | None
) -> None:
    assert parse_evicted_keys(reply) == evicted
