"""Each error reply, and whose it is; as Redis wrote it."""

from __future__ import annotations

import asyncio

import pytest

from sse_push.stream import replies
from sse_push.stream.replies import (
    WHOSE,
    ErrorReply,
    Refusals,
    Whose,
    WrongServer,
    is_refusal,
)
from tests.harness.waiting import until


@pytest.mark.parametrize("code", WHOSE)
def test_an_error_reply_is_as_redis_wrote_it(code: str) -> None:
    text = f"{code} 12 somewhere:1"
    got = ErrorReply(text)

    assert got.code == code
    assert got.whose is WHOSE[code]
    assert str(got) == text


def test_an_error_reply_of_an_unknown_code_is_the_servers() -> None:
    assert ErrorReply("NEVERHEARD of it").whose is Whose.SERVER
    assert ErrorReply("ERR something").whose is Whose.SERVER


def test_only_a_key_of_another_type_says_something_of_its_stream() -> None:
    assert [code for code, whose in WHOSE.items() if whose is Whose.STREAM] == ["WRONGTYPE"]


@pytest.mark.parametrize("code", WHOSE)
def test_a_refusal_is_the_servers_and_that_of_the_wrong_server_is_raised(code: str) -> None:
    got = ErrorReply(f"{code} 12 somewhere:1")
    if got.whose in {Whose.WRONG_SERVER, Whose.ELSEWHERE}:
        with pytest.raises(WrongServer, match=code):
            is_refusal(got)
    else:
        assert is_refusal(got) is (got.whose is Whose.SERVER)


def test_a_reply_that_is_no_error_is_no_refusal() -> None:
    assert not is_refusal([])


async def test_reads_are_sent_again_for_as_long_as_any_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "pause_s", lambda _failures: 0)
    refusals, sent = Refusals(), 0

    def send_again() -> None:
        nonlocal sent
        sent += 1
        if sent % 3 == 0:
            refusals.discard("42")

    retrying = asyncio.create_task(refusals.retry(send_again))
    for expected in (3, 6):
        refusals.add("42", Exception("BUSY"))
        await until(lambda: not refusals, "the read to be answered")
        assert sent == expected
    retrying.cancel()
