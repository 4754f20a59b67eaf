"""What the service tells in an answer: in its events, and in the JSON of its errors.

Knows the wire of the service. Whatever else a server sends counts as nothing told.
"""

from __future__ import annotations

import json
import re

from sse_push.doctor.asking import Answer
from sse_push.errors import InvalidEntryId
from sse_push.notification import EventId
from sse_push.settings import Settings

HEARTBEAT_MAX_S = 300
"""The greatest value of ``heartbeat_s``; a longer one is not waited for."""


def reason_of(answer: Answer) -> str:
    """Return the reason of the ``goodbye``, or what there is instead."""
    goodbyes = answer.of("goodbye")
    if not goodbyes:
        return "none: no ready, and no goodbye"
    return str(object_of(goodbyes[-1][1].data).get("reason", "none"))


def object_of(text: str | bytes) -> dict[str, object]:
    """Return a JSON object; an empty one for any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def ready_of(answer: Answer) -> dict[str, object]:
    """Return what the first event of a stream tells; an empty object without that event."""
    ready = answer.of("ready")
    return object_of(ready[0][1].data) if ready else {}


def merchant_of(answer: Answer) -> str | None:
    """Return the merchant of a stream, or one of its several."""
    ready = ready_of(answer)
    merchants = ready.get("merchants")
    named = next(iter(merchants), None) if isinstance(merchants, dict) else ready.get("merchant_id")
    return None if named is None else str(named)


def heartbeat_of(answer: Answer) -> float:
    """Return the longest silence that the service has promised for this stream."""
    told = ready_of(answer).get("heartbeat_s")
    is_plausible = isinstance(told, int | float) and 0 < told <= HEARTBEAT_MAX_S
    default: float = Settings.model_fields["heartbeat_s"].default
    return float(told) if is_plausible and isinstance(told, int | float) else default


def permitted_bytes(answer: Answer) -> int | None:
    """Return the limit that the service names in its own 413."""
    detail = str(object_of(answer.body).get("detail", ""))
    match = re.match(r"body: expected at most ([0-9]{1,9}) bytes", detail)
    return int(match[1]) if answer.status == 413 and match else None


def event_id_of(text: str) -> EventId | None:
    """Return the ID of an event, with or without the name of its merchant."""
    try:
        return EventId.parse(text.rpartition("@")[2])
    except InvalidEntryId:
        return None
