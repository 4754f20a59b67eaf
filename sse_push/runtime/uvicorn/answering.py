"""Which request of a connection is answered now, and when the connection waits for its client.

Knows the inside of uvicorn's protocol for httptools. Does not know what is requested, nor how long
a connection may wait (``waiting``).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sse_push.runtime.uvicorn.unchunked import write_no_chunks
from sse_push.runtime.uvicorn.waiting import Waiting

LINGER_S = 1.0
"""How long a refused connection is still read: if it closed at once, the answer might be lost."""


class AnsweringProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose connection waits, by ``waiting``, while no answer is written.

    uvicorn tells the end of a connection only to the last request that was read, though an earlier
    one may be the one that is answered: it would write to a closed transport. It would also write
    a refusal before the answers to what was asked before.
    """

    # Slots, and no attributes: uvicorn's own attributes are as many as the dictionaries of a class
    # can share their keys for. With one more, each connection would take 1 KiB more.
    __slots__ = ("_answering", "_last_words", "_linger", "_waiting")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._waiting: Waiting = app_state["requests"].waiting
        self._answering: RequestResponseCycle | None = None
        """The cycle that is, or was last, being answered; ``cycle`` may be one behind it."""
        self._last_words: bytes | None = None
        """What ends the connection once all requests are answered."""
        self._linger: asyncio.TimerHandle | None = None
        """Closes the connection, at shutdown or after a refusal."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Let the connection wait for its first request."""
        super().connection_made(transport)
        self._waiting.add(self, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, and forget those behind it."""
        if self._linger is not None:
            self._linger.cancel()
        self._waiting.end(self)
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Answer the request, at once or behind those before it."""
        super().on_headers_complete()
        if self.scope["http_version"] != "1.1":
            write_no_chunks(self.cycle)
        if not self.pipeline:
            self._answering = self.cycle
        if not self.flow.write_paused:
            self._waiting.end(self)

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait: for one, or for the last bytes to be taken."""
        following = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if following is None or self.transport.is_closing():
            self._waiting.begin(self)
            if self._last_words is not None and not self.transport.is_closing():
                self._end(self._last_words)
        else:
            self._answering = following

    def _end_behind_answers(self, last_words: bytes) -> None:
        """End the connection once all whole requests are answered; a part of one is forgotten."""
        if self.cycle.more_body and self.pipeline:
            self.pipeline.popleft()
        self._last_words = last_words

    def _end(self, last_words: bytes) -> None:
        """End the connection; its client may still be sending, and must be able to read this."""
        self.transport.write(last_words)
        self.transport.write_eof()
        self._linger = self.loop.call_later(LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the client to take bytes."""
        super().pause_writing()
        self._waiting.begin(self)

    def resume_writing(self) -> None:
        """Go on with the answer; without one, the connection still waits for a request."""
        super().resume_writing()
        if self._last_cycle is not None and not self._last_cycle.response_complete:
            self._waiting.end(self)

    def stop_waiting(self) -> None:
        """Wait no longer: the connection is an event stream, and the hub knows its client."""
        self._waiting.end(self)

    @property
    def _last_cycle(self) -> RequestResponseCycle | None:
        """The cycle of the last request whose head has ended; None before the first.

        uvicorn's type of ``cycle`` does not say so.
        """
        return self.cycle
