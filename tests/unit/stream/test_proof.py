"""How long a probe waits, and when its trouble counts."""

from __future__ import annotations

import asyncio

import pytest

from sse_push.stream.proof import Trouble, Unannounced, in_time


async def test_what_is_done_in_time_is_returned() -> None:
    async def work() -> int:
        return 7

    assert await in_time(work(), 60, lambda: 0, "nothing came") == 7


async def test_what_takes_longer_is_ended_and_its_failure_named() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(Unannounced, match=r"nothing came within 0\.01 s"):
        await in_time(work(), 0.01, lambda: 0, "nothing came", Unannounced)
    assert ended.is_set()


async def test_no_time_counts_in_which_a_reply_arrives() -> None:
    looks, is_whole = 0, asyncio.Event()

    def partial_bytes() -> int:
        nonlocal looks
        looks += 1
        if looks >= 60:  # three deadlines
            is_whole.set()
        return looks

    assert await in_time(is_whole.wait(), 0.01, partial_bytes, "nothing came")


def test_a_trouble_begins_and_ends_once() -> None:
    trouble = Trouble()

    assert trouble.ends() is None
    assert [trouble.begins(), trouble.begins()] == [True, False]
    after_s = trouble.ends()
    assert after_s is not None
    assert after_s >= 0
    assert trouble.ends() is None
