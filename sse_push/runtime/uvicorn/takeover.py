"""Takes a connection over from uvicorn, so that events are written without waking a task.

Knows the inside of uvicorn's request cycle and protocol. Does not know what is written.
"""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sse_push.runtime.uvicorn.answering import AnsweringProtocol

SEND_SCOPE_KEY = "sse_push.send"
"""The key of the server's own ``send`` in the ASGI scope; each layer wraps the ``send`` it gets."""


def take_over(scope: Scope) -> RequestResponseCycle | None:
    """Take over the connection of a request; None if its server is not the uvicorn known here.

    From now on nothing that the client sends is read. The caller may write to ``cycle.transport``
    once ``cycle.send`` has sent the head of the response, and while ``cycle.flow`` is not paused.
    """
    # Popped: the cycle holds the scope, and only a full garbage collection would free the two.
    cycle = getattr(scope.pop(SEND_SCOPE_KEY, None), "__self__", None)
    # A subclass may work differently; HTTP/1.0 has no chunks.
    if type(cycle) is not RequestResponseCycle or scope["http_version"] != "1.1":
        return None
    _stop_reading(cycle)
    return cycle


def _stop_reading(cycle: RequestResponseCycle) -> None:
    """Replace uvicorn's protocol by one that drops what the client sends.

    uvicorn would put the cycle of a further request into the place of this one, and report the end
    of the connection only to that cycle: the event stream would outlive its client, and the next
    event would be written to a closed transport. Bytes that are no request would be answered in the
    middle of the event stream.
    """
    transport = cycle.transport
    if transport.is_closing():
        cycle.disconnected = True  # uvicorn may have reported it to the cycle of a further request
        return
    protocol = transport.get_protocol()
    assert isinstance(protocol, HttpToolsProtocol), "a cycle of uvicorn belongs to its protocol"
    if isinstance(protocol, AnsweringProtocol):
        protocol.stop_waiting()
    protocol.pipeline.clear()
    protocol.cycle = cycle
    transport.set_protocol(_WritingOnly(protocol))


class _WritingOnly(asyncio.Protocol):
    """uvicorn's protocol without ``data_received``: what the client sends is dropped."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Forward the end: uvicorn marks the cycle as disconnected."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Forward the pause to uvicorn's flow control, which the event stream obeys."""
        self._protocol.flow.pause_writing()

    def resume_writing(self) -> None:
        """Forward the end of a pause to uvicorn's flow control."""
        self._protocol.flow.resume_writing()
