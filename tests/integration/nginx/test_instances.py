"""nginx before two instances, with the upstream of the document for two machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.faults.instances import name_instances
from tests.harness.nginx import EVENTS, OPEN, Nginx, Recorder, ask, recording
from tests.harness.waiting import until

OPENED = EVENTS % b"text/event-stream"
NOTIFY = b"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncGenerator[tuple[list[Recorder], Nginx]]:
    """Two recorders, and nginx before them."""
    async with AsyncExitStack() as stack:
        (one, here), (other, there) = [
            await stack.enter_async_context(recording()) for _ in range(2)
        ]
        adapt = partial(name_instances, one=here, two=there)
        nginx = await asyncio.to_thread(Nginx.start, tmp_path / "nginx", here, adapt)
        stack.callback(nginx.stop)
        yield [one, other], nginx


async def test_event_streams_go_to_the_instance_that_has_fewer_in_all_workers_of_nginx(
    two: tuple[list[Recorder], Nginx],
) -> None:
    recorders, nginx = two
    writers: dict[Recorder, list[asyncio.StreamWriter]] = {each: [] for each in recorders}

    async def open_one() -> None:
        before = [len(each.requests) for each in recorders]
        _, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
        writer.write(OPENED)
        await until(lambda: [len(each.requests) for each in recorders] != before, "the request")
        (chosen,) = [
            each
            for each, count in zip(recorders, before, strict=True)
            if len(each.requests) > count
        ]
        writers[chosen].append(writer)

    for recorder in recorders:
        recorder.answer = OPEN
    for _ in range(12):
        await open_one()
    spread = [len(each) for each in writers.values()]
    one, other = recorders
    while writers[one]:
        writers[one].pop().close()
    await until(lambda: all(each.done() for each in one.connections), "the end of six streams")
    for _ in range(6):
        await open_one()
    evened_out = [len(each) for each in writers.values()]
    for writer in [*writers[one], *writers[other]]:
        writer.close()

    assert spread == evened_out == [6, 6]


async def test_an_instance_that_hangs_up_is_left_out(two: tuple[list[Recorder], Nginx]) -> None:
    (gone, there), nginx = two
    gone.answer = b""

    streams = [await ask(nginx.port, OPENED) for _ in range(6)]
    posts = [await ask(nginx.internal_port, NOTIFY) for _ in range(6)]

    assert [status for status, _, _ in [*streams, *posts]] == [200] * 12
    assert (len(gone.requests), len(there.requests)) == (1, 12)
