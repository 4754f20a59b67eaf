"""How many requests may be on their way at once: bounded by the bytes expected of their replies.

Knows how large replies have been. Does not know requests, replies or connections.
"""

from __future__ import annotations

EXPECTED_BYTES = 524_288
"""How many bytes of replies may be expected at once. Redis keeps what is not read yet, and ends the
connection above ``client-output-buffer-limit``: with at least twice as much, it never does."""

MOST = 4096
"""At most this many requests are on their way, however small their replies: where a round trip
takes long, it is worth its time."""

LEAST = 2
"""At least so many are: one read, and one question beside it."""

FIRST = 32
"""With so many a connection begins."""

_CUT_SHARE = 4
"""A connection that follows one that was cut begins with this share of what that one began with."""

_ANNOUNCEMENT_BYTES = 64
"""About so many bytes an announcement takes, between the replies."""


class Window:
    """The number of requests that may be on their way; small at first, it grows as replies arrive.

    The next replies are expected to be as large as the last ones. If those were larger than the
    ones before, that counts at once; if smaller, by and by.
    """

    __slots__ = ("_bytes", "_first", "_grown", "_replies", "_reply_bytes", "size")

    def __init__(self) -> None:
        self._first = self._grown = self.size = FIRST
        self._reply_bytes = 1.0
        self._replies = 0
        self._bytes = 0

    def restart(self, *, was_cut: bool) -> None:
        """Begin again on a new connection.

        ``was_cut``: replies were on their way as the one before was lost.
        """
        self._first = max(LEAST, self._first // _CUT_SHARE) if was_cut else FIRST
        self._grown = self._first
        self._replies = self._bytes = 0
        self._fit()

    def has_room(self, on_their_way: int) -> bool:
        """Whether requests may be sent now: not until half of the window is free."""
        return 2 * on_their_way <= self.size

    def room(self, on_their_way: int) -> int:
        """Return how many requests may be sent now."""
        return self.size - on_their_way if self.has_room(on_their_way) else 0

    def answered(self, replies: int, announcements: int, received_bytes: int) -> None:
        """Note what has arrived since the connection began; all three only rise."""
        new_replies = replies - self._replies
        new_bytes = received_bytes - announcements * _ANNOUNCEMENT_BYTES - self._bytes
        if new_replies <= 0 or new_bytes <= 0:
            return
        self._replies += new_replies
        self._bytes += new_bytes
        reply_bytes = new_bytes / new_replies
        self._reply_bytes = max(reply_bytes, (self._reply_bytes + reply_bytes) / 2)
        self._grown = min(MOST, self._grown + new_replies)
        self._fit()

    def _fit(self) -> None:
        self.size = max(LEAST, min(self._grown, int(EXPECTED_BYTES / self._reply_bytes)))
