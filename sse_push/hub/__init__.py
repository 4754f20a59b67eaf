"""The hub: what is pending for which connection of this process, and when it is written.

==============  ==============================================================================
``hub``         the life of a connection, from ``subscribe`` to ``end``
``register``    which connection listens to which merchants
``state``       merchants, subscriptions, the table of their states
``frames``      pending refreshes as a frame for one connection
``drain``       all connections end, spread over a while
``fan_out``     one frame to many connections: pace, slices, resyncs that are spread
``heartbeats``  what is due for one connection: a heartbeat, its greatest age, a stalled client
``grants``      expiry and revocation end a connection
``expiry``      when tokens expire
``refresh``     pending refreshes, and how several become one
==============  ==============================================================================

A connection calls ``subscribe``, waits for ``when_armed``, compares its last event ID with what
``settle`` returns, calls ``admit`` with what it is owed, writes ``first_frame``, and from then on
is offered frames through its ``Sink``. It calls ``drained`` after each refusal, and leaves by
``unsubscribe``; the hub ends it by ``end``. A connection to several merchants calls
``subscribe_all`` instead, and then joins at each merchant in the same way; it is blocked, drained,
kept alive and ended as one.

A change comes in by ``publish``. It becomes pending for its merchant, goes out to all of the
merchant's connections as one frame as soon as the pace allows, and stays pending for those that
cannot take it: newer refreshes of a topic replace older ones there, so that nothing grows.

Does not know Redis, HTTP, sockets or the wire format.
"""

from sse_push.hub.hub import Hub
from sse_push.hub.refresh import Pending, Reason, Refresh, in_order, merge_into
from sse_push.hub.state import TRANSITIONS, HubTally, Pace, Sink, Source, State, Subscription

__all__ = [
    "TRANSITIONS",
    "Hub",
    "HubTally",
    "Pace",
    "Pending",
    "Reason",
    "Refresh",
    "Sink",
    "Source",
    "State",
    "Subscription",
    "in_order",
    "merge_into",
]
