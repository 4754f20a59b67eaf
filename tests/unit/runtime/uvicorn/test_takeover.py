"""The cycle and the protocol are uvicorn's own; over real sockets: ``tests/integration/http``."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sse_push.runtime.uvicorn import SEND_SCOPE_KEY, take_over
from tests.unit.runtime.uvicorn.cycle import CycleOfAnotherKind, OwnTransport, no_app, uvicorn_cycle


async def test_a_cycle_of_uvicorn_is_taken_over_and_leaves_the_scope() -> None:
    cycle, scope = uvicorn_cycle()

    assert take_over(scope) is cycle
    assert SEND_SCOPE_KEY not in scope  # the cycle holds the scope


async def another_send(_message: Message) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    "scope",
    [{"http_version": "1.1"}, {"http_version": "1.1", SEND_SCOPE_KEY: another_send}],
    ids=["nothing in the scope", "another server"],
)
async def test_the_connection_of_another_server_is_not_taken_over(scope: Scope) -> None:
    assert take_over(scope) is None


async def test_a_cycle_whose_inside_may_differ_is_not_taken_over() -> None:
    cycle, scope = uvicorn_cycle(CycleOfAnotherKind)
    protocol = cycle.transport.get_protocol()

    assert take_over(scope) is None
    assert cycle.transport.get_protocol() is protocol


async def test_a_connection_without_chunks_is_not_taken_over() -> None:
    _, scope = uvicorn_cycle(http_version="1.0")

    assert take_over(scope) is None


async def test_a_further_request_on_a_connection_taken_over_is_not_read() -> None:
    cycle, scope = uvicorn_cycle()
    transport = cast("OwnTransport", cycle.transport)
    protocol = cast("HttpToolsProtocol", transport.protocol)
    another, _ = uvicorn_cycle()
    protocol.cycle = another  # as uvicorn has it when two requests arrived in one piece
    protocol.pipeline.append((another, cast("Any", no_app)))

    take_over(scope)
    writing_only = cast("asyncio.Protocol", transport.protocol)
    writing_only.data_received(b"GET /healthz HTTP/1.1\r\n\r\n")
    writing_only.pause_writing()
    was_paused = protocol.flow.write_paused
    writing_only.resume_writing()
    writing_only.connection_lost(None)

    assert not protocol.pipeline
    assert was_paused
    assert not protocol.flow.write_paused
    assert cycle.disconnected
    assert not another.disconnected


async def test_a_client_that_has_left_before_the_takeover_is_disconnected() -> None:
    cycle, scope = uvicorn_cycle()
    cycle.transport.close()

    assert take_over(scope) is cycle
    assert cycle.disconnected
