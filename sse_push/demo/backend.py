"""The cinema's own backend, as a merchant has one: the page, its data, and notifications.

Knows HTTP, and the URL and one path of the service. A backend in another process or language does
the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import jwt
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from sse_push.demo.bodies import read_json
from sse_push.demo.cinema import ROWS, SEATS, SEATS_PER_ROW, SHOWS, Cinema
from sse_push.http import paths

logger = logging.getLogger(__name__)

_WAITS_S = (0.0, 0.2, 0.4)
"""How long to wait before each try to reach the service."""

_BODY_LIMIT_BYTES = 4096
_NAME_LENGTH = 64
_TOKEN_LIFETIME_S = 60
"""Short, so that a visitor can watch the page renew its token."""


def client_folder() -> Path:
    """Return where the browser module and the page are: in the wheel, or in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "client"
    return installed if installed.is_dir() else package.parent / "client"


class Backend:
    """The endpoints; those that wait for SQLite or the service run in threads."""

    def __init__(
        self,
        cinema: Cinema,
        service: httpx2.Client,
        token_key: str | None,
        buyers: int = 0,
        waits_s: Sequence[float] = _WAITS_S,
    ) -> None:
        self._cinema = cinema
        self._service = service
        self._token_key = token_key
        self._buyers = buyers
        self._waits_s = waits_s

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes: the data, the browser module, and the page at ``/``."""
        files = client_folder()
        return [
            Route("/about", self.about),
            Route("/token", self.token),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/seats", self.seats),
            Route("/seats/reset", self.reset, methods=["POST"]),
            Route("/seats/{seat}/sell", self.sell, methods=["POST"]),
            Mount("/client", StaticFiles(directory=files)),
            Mount("/", StaticFiles(directory=files / "demo", html=True)),
        ]

    def about(self, _request: Request) -> Response:
        """GET /about -> what the page shows of this demo, and the time here, to compare clocks."""
        return JSONResponse(
            {
                "tokens": self._token_key is not None,
                "crowd": self._buyers,
                "now_ms": _now_ms(),
            },
            headers={"Cache-Control": "no-store"},
        )

    def token(self, request: Request) -> Response:
        """GET /token?merchant_id=roxy&session=s-1 -> a token that lets a page listen to this house.

        204 if the service needs no tokens, 401 if the session has ended. A real backend finds the
        session by a cookie, and checks: may this user see the data of this merchant?
        """
        if self._token_key is None:
            return Response(status_code=204)
        merchant_id = _house(request.query_params.get("merchant_id"))
        session = request.query_params.get("session", "")[:_NAME_LENGTH]
        if self._cinema.has_ended(session):
            return JSONResponse({"error": "logged_out", "detail": "the session has ended"}, 401)
        now = int(time.time())
        claims = {
            "merchant_id": merchant_id,
            "sub": session,
            "iat": now,
            "exp": now + _TOKEN_LIFETIME_S,
        }
        text = jwt.encode(claims, self._token_key, "HS256")
        return PlainTextResponse(text, headers={"Cache-Control": "no-store"})

    async def logout(self, request: Request) -> Response:
        """POST /logout ``{"merchant_id", "by"}`` -> the session ``by`` is ended, its stream too."""
        merchant_id, session = await _buyer(request)
        return await run_in_threadpool(self._logout, merchant_id, session)

    def seats(self, request: Request) -> Response:
        """GET /seats?merchant_id=roxy -> all seats of the house, sold and free."""
        merchant_id = _house(request.query_params.get("merchant_id"))
        film, starts = SHOWS[merchant_id]
        sales = self._cinema.sales(merchant_id)
        seats = [
            {"seat": seat, "sold": True, "by": sale.by, "sold_at_ms": sale.sold_at_ms}
            if (sale := sales.get(seat)) is not None
            else {"seat": seat, "sold": False}
            for seat in SEATS
        ]
        return JSONResponse(
            {
                "merchant_id": merchant_id,
                "film": film,
                "starts": starts,
                "rows": ROWS,
                "seats_per_row": SEATS_PER_ROW,
                "seats": seats,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def sell(self, request: Request) -> Response:
        """POST /seats/C7/sell ``{"merchant_id", "by"}`` -> the sale, or 409 if it was sold."""
        merchant_id, by = await _buyer(request)
        seat = request.path_params["seat"]
        if seat not in SEATS:
            raise HTTPException(404, f"there is no seat {seat[:8]!r}")
        return await run_in_threadpool(self._sell, merchant_id, seat, by)

    async def reset(self, request: Request) -> Response:
        """POST /seats/reset ``{"merchant_id", "by"}`` -> an empty house."""
        merchant_id, by = await _buyer(request)
        return await run_in_threadpool(self._reset, merchant_id, by)

    def _sell(self, merchant_id: str, seat: str, by: str) -> Response:
        sale, is_new = self._cinema.sell(merchant_id, seat, by)
        if not is_new:
            earlier_ms = _now_ms() - sale.sold_at_ms
            earlier = f"{earlier_ms} ms" if earlier_ms < 1000 else f"{earlier_ms / 1000:.0f} s"
            detail = f"seat {seat} was sold {earlier} earlier"
            return JSONResponse({"error": "sold", "detail": detail}, 409)
        # After the commit: a browser that fetches at once must find the sale.
        data = {"seat": seat, "sold_at_ms": sale.sold_at_ms, "posted_at_ms": _now_ms()}
        self._notify({"merchant_id": merchant_id, "topic": "seats", "data": data, "by": by})
        return JSONResponse(data)

    def _reset(self, merchant_id: str, by: str) -> Response:
        self._cinema.empty(merchant_id)
        self._notify({"merchant_id": merchant_id, "topic": "seats", "by": by})
        return JSONResponse({})

    def _logout(self, merchant_id: str, session: str) -> Response:
        # First no new token, then none of the old: a page whose stream ends asks for a new one.
        self._cinema.end_session(session)
        self._post(paths.REVOKE, {"merchant_id": merchant_id, "sub": session})
        return JSONResponse({})

    def _notify(self, notification: dict[str, object]) -> None:
        self._post(paths.NOTIFY, notification)

    def _post(self, path: str, body: dict[str, object]) -> None:
        for wait_s in self._waits_s:
            time.sleep(wait_s)
            if not self._must_repeat(path, body):
                return

    def _must_repeat(self, path: str, body: dict[str, object]) -> bool:
        """Post to the service; return whether to send the same again, which is always safe.

        Any other answer than 429 and 5xx names a mistake in the request, which stays one.
        """
        try:
            answer = self._service.post(path, json=body)
        except httpx2.TransportError as exc:
            logger.warning("not posted path=%s cause=%s", path, exc)
            return True
        if answer.is_success:
            return False
        logger.warning("not posted path=%s status=%d", path, answer.status_code)
        return answer.status_code == 429 or answer.status_code >= 500


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _house(merchant_id: object) -> str:
    if not isinstance(merchant_id, str) or merchant_id not in SHOWS:
        raise HTTPException(404, f"there is no such cinema, expected one of {', '.join(SHOWS)}")
    return merchant_id


async def _buyer(request: Request) -> tuple[str, str]:
    body = await read_json(request, _BODY_LIMIT_BYTES)
    if not isinstance(body, dict) or not isinstance(body.get("by"), str):
        raise HTTPException(400, "expected JSON with merchant_id and by")
    return _house(body.get("merchant_id")), body["by"][:_NAME_LENGTH]
