"""What all event streams of a process share: the hub, gaps, times, soft answers.

Knows the headers of an event stream. Does not know how a response is written, nor who may get one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from dataclasses import dataclass, field

from starlette.responses import Response

from sse_push.errors import EndReason, Occasion
from sse_push.event_stream.gaps import Gaps
from sse_push.event_stream.wire import MEDIA_TYPE, Frame, encode_goodbye
from sse_push.hub import Hub

logger = logging.getLogger(__name__)

HEADERS = {
    # no-transform: a proxy that compresses would hold events back.
    "Cache-Control": "no-store, no-transform",
    # https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
    "X-Accel-Buffering": "no",
}

SOFT_ANSWER_HEADER = "X-Sse-Push-Soft-Answer"
"""Marks a soft answer, for monitoring; nginx sets it on its own soft answers as well."""

_REVOKED_GRACE_S = 0.5
"""How long a client may take to read what was written before its grant was revoked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStreams:
    """What all event streams of a process share."""

    hub: Hub[Frame]
    gaps: Gaps
    heartbeat_s: float
    retry_ms: int
    soft_retry_min_ms: int
    soft_retry_max_ms: int
    send_timeout_s: float
    send_buffer_bytes: int
    poll_interval_s: float
    arm_timeout_s: float = 0.5
    """How long ``ready`` waits for Redis, to be written together with what is owed."""
    soft_answers: Counter[EndReason] = field(
        default_factory=lambda: Counter(dict.fromkeys(EndReason.on(Occasion.SOFT_ANSWER), 0))
    )
    """The number of soft answers so far, by reason."""

    def jittered_retry_ms(self) -> int:
        """Return a reconnection time, half to one and a half of ``retry_ms``."""
        return round(self.retry_ms * random.uniform(0.5, 1.5))  # noqa: S311 (spreads load)

    def jittered_poll_s(self) -> int:
        """Return when to poll next, for ``Retry-After``: half to one and a half of the interval."""
        return math.ceil(self.poll_interval_s * random.uniform(0.5, 1.5))  # noqa: S311 (as above)

    def goodbye(self, reason: EndReason) -> bytes:
        """Return the last event of a connection."""
        return encode_goodbye(reason.value, self.jittered_retry_ms())

    def soft_answer(self, reason: EndReason) -> Response:
        """Return the soft answer: an event stream of one event, a ``goodbye``, with status 200.

        A client that cannot be served now gets it. Its EventSource reconnects later with its last
        event ID; after any other status it would never reconnect.
        """
        self.soft_answers[reason] += 1
        logger.debug("not served reason=%s", reason.value)
        retry_ms = random.randint(self.soft_retry_min_ms, self.soft_retry_max_ms)  # noqa: S311
        return Response(
            encode_goodbye(reason.value, retry_ms),
            headers={**HEADERS, SOFT_ANSWER_HEADER: "1"},
            media_type=MEDIA_TYPE,
        )


def cut_time(reason: EndReason, expires_at: float) -> float:
    """Return when a connection that ends is cut off at the latest, by the event loop's clock.

    Bytes that the client has not read by then are lost. After its grant has expired or was revoked
    a client must get no more events, even those that wait in a buffer.
    """
    if reason is EndReason.REVOKED:
        return min(expires_at, asyncio.get_running_loop().time() + _REVOKED_GRACE_S)
    return expires_at
