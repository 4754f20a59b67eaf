"""A worker's end of the socket, with a test at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from typing import NamedTuple

import pytest

from sse_push.runtime.link import BEAT, CUT, LEAVE, SERVING, WELL, Link
from tests.harness.waiting import SECOND, until


class Ends(NamedTuple):
    link: Link
    supervisor: socket.socket


@pytest.fixture
def ends() -> Generator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5 * SECOND)
        yield Ends(Link(theirs), ours)


async def test_a_worker_tells_that_it_serves_is_alive_and_is_well(ends: Ends) -> None:
    await ends.link.tell_serving()
    ends.link.beat()
    ends.link.tell_well()

    assert ends.supervisor.recv(64) == SERVING + BEAT + WELL


def test_a_supervisor_that_stands_still_makes_no_worker_wait(ends: Ends) -> None:
    for _ in range(10_000):
        ends.link.beat()

    assert ends.supervisor.recv(64) == BEAT * 64


def test_a_supervisor_that_is_gone_is_no_error_of_a_beat(ends: Ends) -> None:
    ends.supervisor.close()

    ends.link.beat()


async def test_a_worker_is_told_that_the_service_is_about_to_stop(ends: Ends) -> None:
    is_leaving = asyncio.Event()
    ends.link.on_leave = is_leaving.set
    task = asyncio.create_task(ends.link.follow())

    ends.supervisor.send(LEAVE)
    await until(is_leaving.is_set, "the order")

    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_an_order_to_cut_is_obeyed_in_the_loop(ends: Ends) -> None:
    cuts: list[asyncio.AbstractEventLoop] = []
    ends.link.on_cut = lambda: cuts.append(asyncio.get_running_loop())
    task = asyncio.create_task(ends.link.follow())

    ends.supervisor.send(CUT)
    await until(lambda: bool(cuts), "the cut")
    is_followed = not task.done()
    task.cancel()
    await asyncio.wait([task])
    ends.supervisor.send(CUT)
    for _ in range(20):
        await asyncio.sleep(0)

    assert is_followed
    assert cuts == [asyncio.get_running_loop()], "after its end it follows no longer"


@pytest.mark.parametrize("is_unread", [False, True])
async def test_a_worker_finds_out_once_its_supervisor_is_gone(
    ends: Ends, *, is_unread: bool
) -> None:
    if is_unread:  # then the system resets the connection
        ends.link.beat()
    ends.supervisor.close()

    async with asyncio.timeout(5 * SECOND):
        await ends.link.follow()
