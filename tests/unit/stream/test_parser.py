"""Bytes and the replies in them: cut anywhere, of every kind, too large, and none at all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hiredis import PushNotification

from sse_push.stream.parser import NOT_WHOLE, Garbled, Parser, ReplyTooLarge
from sse_push.stream.replies import ErrorReply

LIMIT_BYTES = 1000

STREAM = (
    b"#f\r\n"  # False, which is no lack of bytes
    b"_\r\n$-1\r\n*-1\r\n"  # three ways to say nothing
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\n{a|b}\r\n"
    b"*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\ndata\r\n$6\r\n\n|1\r\n|\r\n*0\r\n"
    b"|1\r\n+ttl\r\n:3600\r\n"  # an attribute
    b">2\r\n$10\r\ninvalidate\r\n_\r\n"
    b"-WRONGTYPE Operation against a key\r\n"
    b"|2\r\n+a\r\n%1\r\n+b\r\n:1\r\n+c\r\n#t\r\n"  # an attribute with a map in it
    b":-7\r\n"
    b"%1\r\n+proto\r\n:3\r\n"
    b"*1\r\n-ERR within\r\n"
    b"=7\r\ntxt:abc\r\n"
)

REPLIES: list[object] = [
    False,
    None,
    None,
    None,
    [b"invalidate", [b"{a|b}"]],
    [[b"1-0", [b"data", b"\n|1\r\n|"]], []],
    [b"invalidate", None],
    "WRONGTYPE Operation against a key",
    -7,
    {b"proto": 3},
    ["ERR within"],
    b"abc",
]


def taken(parser: Parser, pieces: Iterable[bytes]) -> list[object]:
    got: list[object] = []
    for piece in pieces:
        parser.feed(piece)
        while (reply := parser.take()) is not NOT_WHOLE:
            got.append(reply)
    return got


def plain(reply: object) -> object:
    """Return a reply with its errors as their texts, so that replies can be compared."""
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return str(reply) if isinstance(reply, ErrorReply) else reply


def test_replies_are_the_same_wherever_their_bytes_are_cut() -> None:
    for cut in range(len(STREAM) + 1):
        got = taken(Parser(LIMIT_BYTES), [STREAM[:cut], STREAM[cut:]])

        assert [plain(reply) for reply in got] == REPLIES, f"cut after {cut} bytes"
        assert [isinstance(reply, PushNotification) for reply in got].count(True) == 2


def test_replies_are_the_same_byte_by_byte() -> None:
    got = taken(Parser(LIMIT_BYTES), (bytes([each]) for each in STREAM))

    assert [plain(reply) for reply in got] == REPLIES


def test_an_error_reply_is_a_value() -> None:
    (error,) = taken(Parser(LIMIT_BYTES), [b"-NOPERM no \xff rights\r\n"])

    assert isinstance(error, ErrorReply)
    assert error.code == "NOPERM"


def test_a_reply_above_the_limit_is_read_no_further() -> None:
    parser = Parser(LIMIT_BYTES)
    pieces = [b"+OK\r\n$100000\r\n", *[b"x" * 400] * 3]

    assert taken(parser, pieces) == [b"OK"]
    assert parser.partial_bytes == 1200
    with pytest.raises(ReplyTooLarge, match="expected a reply of at most 1000 bytes, got more"):
        parser.feed(b"x")
    assert parser.received_bytes == sum(map(len, pieces))


def test_many_replies_may_have_more_bytes_than_one_may() -> None:
    bulk = b"$400\r\n" + b"x" * 400 + b"\r\n"
    pieces = [bulk * 2 + bulk[:100], bulk[100:] + bulk[:100], bulk[100:]] * 3
    parser = Parser(LIMIT_BYTES)

    assert taken(parser, pieces) == [b"x" * 400] * 12
    assert parser.partial_bytes == 0


def test_a_part_of_the_next_reply_counts_from_the_next_piece_on() -> None:
    parser = Parser(LIMIT_BYTES)
    taken(parser, [b"+OK\r\n$3\r\na"])
    assert parser.partial_bytes == 0
    taken(parser, [b"b"])
    assert parser.partial_bytes == 1


@pytest.mark.parametrize(
    "hostile",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",  # an alert of TLS
        b"\x00",
        b"?",
        b"*99999999999\r\n",
        b"*-2\r\n",
        b"$-2\r\n",
        b"$x\r\n",
        b":x\r\n",
        b"#x\r\n",
        b"+OK\r\nnonsense\r\n",
        b"%1\r\n*1\r\n+a\r\n+b\r\n",  # a list as a key
        b"|1\r\n*1\r\n+a\r\n+b\r\noops\r\n",
    ],
)
def test_what_is_no_reply_is_garbled(hostile: bytes) -> None:
    with pytest.raises(Garbled):
        taken(Parser(LIMIT_BYTES), [hostile])


@pytest.mark.parametrize(
    "hostile", [b"*2147483647\r\n", b"$9223372036854775000\r\n", b"*1\r\n" * 250]
)
def test_a_reply_that_promises_too_much_is_given_up_at_the_limit(hostile: bytes) -> None:
    parser = Parser(LIMIT_BYTES)

    with pytest.raises(ReplyTooLarge):
        taken(parser, [hostile, *[b"*1\r\n" * 50] * 20])


def test_lines_that_look_like_attributes_within_data_cost_no_reply() -> None:
    data = b"\n|" * 200
    stream = b"$400\r\n" + data + b"\r\n|0\r\n+OK\r\n"

    assert taken(Parser(LIMIT_BYTES), [stream] * 3) == [data, b"OK"] * 3
