"""Event streams: how a connection is opened, written to and ended.

``response`` chooses the way to write: ``transport`` under uvicorn, ``portable`` under any other
server. Both begin with an ``opening``. What the client is owed is found by a ``comparison``, whose
rules are those of ``resume``, and what it has missed by ``gaps``.
A ``poll`` is the same comparison, answered at once as JSON.
Whom either is for, ``listening`` says.
``shared`` has what all event streams of a process share, ``wire`` the bytes of each event.

The life of a connection, with the calls of the hub and the states of the fast way::

    GET /events, allowed             (otherwise an error, or a soft answer)
         |
         |  hub.subscribe            its place: changes are pending from now on
    OPENING
         |  hub.when_armed           the merchant's stream has been read once
         |  hub.settle, owed         last event ID against newest ID: what the client is owed
         |  Gaps.refreshes           only if the ID is older: what the client has missed
         |  hub.admit                what is owed comes before what is pending
         |  hub.first_frame          written in one piece with ``ready``; if Redis takes longer
         |                           than arm_timeout_s, ``ready`` alone, and the rest follows
         v
       OPEN <-- hub.drained --+      offer: each frame is one write
         |                    |
         +-- no bytes taken --+      DRAINING: refreshes are pending, newer replace older
         |
         |  end                      age, token, revocation, shutdown: the hub has given the
         v                           place up, so that no frame follows
     FINISHING                       ``goodbye``, and the response is complete
         |
         v                           CUT, from any state: the client takes no bytes
    hub.unsubscribe                  the client has disconnected, which it may at any time

A client of several merchants has a place at each, and joins at each on its own; its ``ready`` says
how each stands. The connection is one in all else: its state, its heartbeat, its end.

Does not know Redis, nor who may get an event stream.
"""

from sse_push.event_stream.gaps import Gaps
from sse_push.event_stream.listening import Listening
from sse_push.event_stream.poll import poll
from sse_push.event_stream.portable import keep_streams_at_shutdown
from sse_push.event_stream.response import open_event_stream
from sse_push.event_stream.resume import position_of
from sse_push.event_stream.shared import HEADERS, EventStreams
from sse_push.event_stream.wire import MEDIA_TYPE, Frame

__all__ = [
    "HEADERS",
    "MEDIA_TYPE",
    "EventStreams",
    "Frame",
    "Gaps",
    "Listening",
    "keep_streams_at_shutdown",
    "open_event_stream",
    "poll",
    "position_of",
]
