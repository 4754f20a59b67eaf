"""The choice between the two ways to write an event stream.

Knows the two ways. Does not know how either of them works.
"""

from __future__ import annotations

from starlette.types import Scope

from sse_push.event_stream.listening import Listening
from sse_push.event_stream.portable import PortableStream
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.transport import TransportStream
from sse_push.runtime.uvicorn import take_over


def open_event_stream(
    streams: EventStreams, scope: Scope, listening: Listening
) -> TransportStream | PortableStream:
    """Return the response to this client, by the fastest way that its server allows."""
    cycle = take_over(scope)
    if cycle is None:
        return PortableStream(streams, listening)
    return TransportStream(streams, listening, cycle)
