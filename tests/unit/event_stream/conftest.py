"""Services whose event streams are closed after each test."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, cast

import pytest

from sse_push.access.grant import Grant
from tests.harness.ids import at
from tests.unit.event_stream.service import Browser, Neighbor, Serve, Server, Service


@pytest.fixture
async def serve() -> AsyncGenerator[Serve]:
    """Start services, and close them; no task of an event stream may have failed unnoticed."""
    services: list[Service] = []
    tasks: list[asyncio.Task[Any]] = []

    def start(**options: Any) -> Service:
        services.append(Service(**options))
        return services[-1]

    def keep(
        loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(call, loop=loop, **options))
        return tasks[-1]

    asyncio.get_running_loop().set_task_factory(cast("Any", keep))
    yield start
    for service in services:
        await service.close()
    own = [task for task in tasks if task.get_name().endswith(" 42") and task.done()]
    meant = {service.shelf.error for service in services} | {None}
    assert [each for each in own if not each.cancelled() and each.exception() not in meant] == []


@pytest.fixture
def service(serve: Serve) -> Service:
    return serve()


@pytest.fixture
async def timely(serve: Serve) -> Service:
    """A service whose Redis has answered, and whose clock is the real one."""
    service = serve(clock=asyncio.get_running_loop())
    service.hub.subscribe(Grant("42"), Neighbor())
    service.armed(at(7))
    return service


@pytest.fixture
def without_collector() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["fast", "portable"])
def begin(request: pytest.FixtureRequest) -> Callable[..., Browser | Server]:
    """Open a connection in each of the two ways."""
    return Browser if request.param == "fast" else Server
