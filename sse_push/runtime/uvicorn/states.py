"""What the bytes that a connection receives are part of.

Knows the states and their order. Does not know what leads from one to the next (``protocol``).
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """What the bytes that a ``BoundedProtocol`` receives are part of."""

    HEAD = auto()
    """A head that has not ended, or has not begun."""
    LAST_HEAD = auto()
    """As ``HEAD``, at shutdown: the connection closes after this request."""
    BODY = auto()
    """A body, or trailers: the head has ended, the request has not."""
    WHOLE = auto()
    """No request: the last byte received was the last of a request."""
    TOO_LARGE = auto()
    """A head, or trailers, over the limit, until the parser has given up."""
    REFUSED = auto()
    """No request: all further bytes are dropped."""


# Names of this module: an enum's member costs a second lookup, once per piece received.
HEAD, LAST_HEAD, BODY, WHOLE, TOO_LARGE, REFUSED = State

TRANSITIONS: dict[State, set[State]] = {
    HEAD: {LAST_HEAD, BODY, TOO_LARGE, REFUSED},
    LAST_HEAD: {BODY, TOO_LARGE, REFUSED},
    BODY: {WHOLE, TOO_LARGE, REFUSED},
    WHOLE: {HEAD},
    TOO_LARGE: {REFUSED},
    REFUSED: set(),
}
"""The states that may follow each state; the tests check every change of every connection."""
