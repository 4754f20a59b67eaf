"""The states of a connection that is fed by hand; each change is held against the table."""

from __future__ import annotations

import pytest

from sse_push.runtime.uvicorn.states import (
    BODY,
    HEAD,
    LAST_HEAD,
    REFUSED,
    TOO_LARGE,
    TRANSITIONS,
    WHOLE,
    State,
)
from tests.unit.runtime.uvicorn.connection import CHUNKED, GET, LIMIT_BYTES, Connection

LARGE = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * LIMIT_BYTES + b"\r\n"
TOO_LONG = b"GET /" + b"x" * LIMIT_BYTES


@pytest.mark.parametrize(
    ("is_stopping", "pieces", "states"),
    [
        (False, [], [HEAD]),
        (False, [b"GET /"], [HEAD]),
        (False, [CHUNKED], [HEAD, BODY]),
        (False, [CHUNKED, b"0\r\n", b"X: y\r\n\r\n"], [HEAD, BODY, WHOLE]),
        (False, [GET], [HEAD, BODY, WHOLE]),
        (False, [GET, b"\r\n"], [HEAD, BODY, WHOLE, HEAD]),
        (False, [GET, GET], [HEAD, BODY, WHOLE, HEAD, BODY, WHOLE]),
        (False, [GET + GET], [HEAD, BODY, WHOLE, HEAD, BODY, WHOLE]),
        (False, [TOO_LONG], [HEAD, REFUSED]),
        (False, [LARGE], [HEAD, TOO_LARGE, REFUSED]),
        (False, [CHUNKED + b"0\r\n" + LARGE[16:]], [HEAD, BODY, TOO_LARGE, REFUSED]),
        (False, [b"nonsense"], [HEAD, REFUSED]),
        (False, [CHUNKED, b"nonsense"], [HEAD, BODY, REFUSED]),
        (False, [GET + b"nonsense"], [HEAD, BODY, WHOLE, HEAD, REFUSED]),
        (False, [b"nonsense", GET], [HEAD, REFUSED]),
        (True, [], [HEAD, LAST_HEAD]),
        (True, [GET], [HEAD, LAST_HEAD, BODY, WHOLE]),
        (True, [TOO_LONG], [HEAD, LAST_HEAD, REFUSED]),
        (True, [LARGE], [HEAD, LAST_HEAD, TOO_LARGE, REFUSED]),
    ],
)
async def test_the_state_of_a_connection_follows_its_bytes(
    pieces: list[bytes], states: list[State], *, is_stopping: bool
) -> None:
    connection = Connection()
    if is_stopping:
        connection.protocol.shutdown()
    await connection.feed(*pieces)

    assert connection.protocol.states == states


def test_each_state_stands_in_the_table_and_a_refusal_is_final() -> None:
    assert set(TRANSITIONS) == set(State)
    assert [state for state in State if not TRANSITIONS[state]] == [REFUSED]
