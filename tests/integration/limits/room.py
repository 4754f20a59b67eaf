"""A service with little room, as its clients see it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from tests.harness.service import Service
from tests.harness.stream import Stream, open_stream
from tests.harness.waiting import SECOND, Deadline
from tests.integration.test_metrics import scraped_when

MAX = 12
MAX_PER_MERCHANT = 6
MAX_PER_ADDRESS = 3
KEYS = [f"key-{number}-of-the-tests-c40d9e72b1f6a385" for number in range(4)]
PROXY = "127.0.0.7"

REQUEST_TIMEOUT_S = SECOND


async def until_empty(service: Service) -> None:
    """Wait until the service knows that all its clients have left."""
    await scraped_when(service, lambda told: told["sse_push_connections_open"] == 0)


@asynccontextmanager
async def opened(
    service: Service, *whose: tuple[str, str], headers: dict[str, str] | None = None
) -> AsyncGenerator[list[Stream]]:
    """Open a connection for each merchant and address."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_stream(service.url, merchant, source=source, headers=headers)
            )
            for merchant, source in whose
        ]


async def refusal(stream: Stream) -> str | None:
    """Return the reason of a soft answer, from its bytes; None for an event stream."""
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    if "x-sse-push-soft-answer" not in stream.headers:
        await stream.next("ready")
        return None
    body = await stream.reader.readexactly(int(stream.headers["content-length"]))
    parsed = re.fullmatch(
        rb'retry: ([0-9]+)\nevent: goodbye\ndata: \{"reason":"([a-z_]+)"\}\n\n', body
    )
    assert parsed is not None, body
    assert 5000 <= int(parsed[1]) <= 30_000
    return parsed[2].decode()


async def refused(
    service: Service, merchant: str, source: str = "127.0.0.1", **headers: str
) -> str | None:
    """Try to open one connection, and close it."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with open_stream(service.url, merchant, source=source, headers=given) as stream:
        return await refusal(stream)


async def eventually(ask: Callable[[], Awaitable[str | None]], expected: str | None) -> None:
    """Ask until the answer is this: the service learns of the end of a connection a bit later."""
    deadline = Deadline(5 * SECOND)
    while (got := await ask()) != expected:
        assert not deadline.is_over(), got
        await asyncio.sleep(0.01)


def sources(count: int) -> list[str]:
    """Return ``count`` addresses, each as often as one address may connect."""
    return [f"127.0.1.{1 + number // MAX_PER_ADDRESS}" for number in range(count)]
