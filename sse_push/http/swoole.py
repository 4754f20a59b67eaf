"""The call of the old Swoole server, for a backend that is not changed yet (``swoole_compat``).

Knows how that server was asked, and what it answered. Does not know which backends may ask
(``access.keyless``). ``docs/swoole.md`` describes the move.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sse_push.http import paths
from sse_push.http.endpoints import require_rate
from sse_push.http.parameters import MERCHANT_OF_SWOOLE, only, read_query
from sse_push.http.service import State
from sse_push.notification import Notification, parse_merchant_id

SUCCESS = "success"
"""What the old server answered, whatever had happened."""


async def notify(request: Request[State]) -> Response:
    """GET /?merchantId=42 -> 200 ``success`` once Redis has the notification; errors are JSON."""
    state = request.state
    state["keyless"].check(request.scope.get("client"), request.headers)
    value = only(read_query(request, (MERCHANT_OF_SWOOLE,)), MERCHANT_OF_SWOOLE)
    merchant_id = parse_merchant_id(value, name=MERCHANT_OF_SWOOLE)
    require_rate(state, None, 1)
    await state["appender"].append(Notification(merchant_id))
    return PlainTextResponse(SUCCESS, headers={"Cache-Control": "no-store"})


ROUTE = Route(paths.SWOOLE, notify)
ROUTE.methods = {"GET"}  # not HEAD, which Starlette adds: a HEAD must change nothing
