"""A proxy between the page and the service, with a switch: while it is mute, no event passes.

It does what a proxy with buffering does: a request and its headers pass at once, a short answer
passes whole, and of an event stream nothing arrives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from sse_push.demo.bodies import read_json
from sse_push.http import paths

_BODY_LIMIT_BYTES = 64
_HELD_LIMIT_BYTES = 65_536
"""At most so much of one stream is held; a stream that has more is ended, as its client is gone."""

_CONNECT_S = 5.0
_OF_A_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}
"""https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1, and what the client below has decoded."""


class Proxy:
    """The endpoints; ``switch`` is a file that exists while the proxy is mute, in all workers."""

    def __init__(
        self, url: str, switch: Path, *, held_limit_bytes: int = _HELD_LIMIT_BYTES
    ) -> None:
        timeout = httpx2.Timeout(_CONNECT_S, read=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._service = httpx2.AsyncClient(base_url=url, timeout=timeout, limits=limits)
        self._switch = switch
        self._held_limit_bytes = held_limit_bytes

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes: what the page uses instead of ``/events``, and the switch."""
        return [
            Route("/proxy/events", self.events),
            Route("/proxy", self.turn, methods=["POST"]),
        ]

    async def turn(self, request: Request) -> Response:
        """POST /proxy ``{"mute": true}`` -> no event passes from now on, to any page."""
        body = await read_json(request, _BODY_LIMIT_BYTES)
        if not isinstance(body, dict) or not isinstance(body.get("mute"), bool):
            raise HTTPException(400, 'expected {"mute": true} or {"mute": false}')
        if body["mute"]:
            self._switch.touch()
        else:
            self._switch.unlink(missing_ok=True)
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        """GET /proxy/events -> what ``/events`` answers."""
        sent = [pair for pair in request.headers.raw if pair[0].decode() not in _OF_A_HOP]
        url = httpx2.URL(paths.EVENTS, query=request.url.query.encode())
        asked = self._service.build_request(request.method, url, headers=sent)
        try:
            answer = await self._service.send(asked, stream=True)
        except httpx2.TransportError as exc:
            raise HTTPException(502, f"expected an answer of the service, got {exc!r}") from exc
        passed = {name: value for name, value in answer.headers.items() if name not in _OF_A_HOP}
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        body = self._let_through(answer) if is_stream else answer.aiter_bytes()
        return StreamingResponse(_closing(answer, body), answer.status_code, passed)

    async def _let_through(self, answer: httpx2.Response) -> AsyncGenerator[bytes]:
        held = b""
        async for chunk in answer.aiter_bytes():
            held += chunk
            if not self._switch.exists():
                yield held
                held = b""
            elif len(held) > self._held_limit_bytes:
                return


async def _closing(answer: httpx2.Response, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in body:
            yield chunk
    finally:
        await answer.aclose()
