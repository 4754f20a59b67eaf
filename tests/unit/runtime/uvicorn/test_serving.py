"""How connections are cut; the server itself runs in ``integration/test_server.py``."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest
import uvicorn

from sse_push.runtime.uvicorn import serving
from tests.harness.waiting import until


async def test_the_connections_of_a_server_are_cut() -> None:
    server = uvicorn.Server(uvicorn.Config(cast("Any", None), log_config=None))
    connections = [Mock(), Mock()]
    server.server_state.connections.update(connections)

    serving._cut(server)

    for connection in connections:
        connection.transport.abort.assert_called_once_with()
    assert not server.force_exit


async def test_what_does_not_end_once_it_is_cut_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = uvicorn.Server(uvicorn.Config(cast("Any", None), log_config=None))
    monkeypatch.setattr(serving, "_CUT_LIMIT_S", 0.01)

    serving._cut(server)

    await until(lambda: server.force_exit, "the end of the wait")
