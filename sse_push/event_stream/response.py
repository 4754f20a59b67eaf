"""The choice between the two ways to write an event stream.

Knows the two ways. Does not know how either of them works.
"""

from __future__ import annotations

from starlette.types import Scope

from sse_push.access.grant import Grant
from sse_push.event_stream.portable import PortableStream
from sse_push.event_stream.shared import EventStreams
from sse_push.event_stream.transport import TransportStream
from sse_push.runtime.uvicorn import take_over


def open_event_stream(
    streams: EventStreams,
    scope: Scope,
    grant: Grant,
    last_event_id: str | None,
    *,
    is_named: bool = False,
) -> TransportStream | PortableStream:
    """Return the response to this client, by the fastest way that its server allows.

    ``is_named``: the IDs of its events name their merchant.
    """
    cycle = take_over(scope)
    if cycle is None:
        return PortableStream(streams, grant, last_event_id, is_named=is_named)
    return TransportStream(streams, grant, last_event_id, cycle, is_named=is_named)
