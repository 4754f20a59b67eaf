"""The parameters in the query of a request: which are known, and what becomes of others.

Knows names. Does not know what the value of a parameter means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from sse_push.errors import InvalidQuery, RefusalReason
from sse_push.errors.words import nearest, suggest

MERCHANT = "merchant_id"
LAST_EVENT_ID = "last_event_id"
LAST_EVENT_ID_OF_POLYFILL = "lastEventId"
"""The same, as ``event-source-polyfill`` adds it to the URL when it comes back: so it is newer."""

MERCHANT_OF_SWOOLE = "merchantId"
"""As the old Swoole server was asked (``swoole``)."""

GRANT = "grant"
"""Whether ``ready`` has the digest of the client's rights; on a URL that names one merchant."""

OF_EVENTS = (GRANT, MERCHANT, LAST_EVENT_ID_OF_POLYFILL, LAST_EVENT_ID, "token")
"""Those of ``GET /events``; of two that are alike, an error suggests the last."""


def read_query(request: Request[Any], known: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Return the values of each known parameter, in order; refuse a slip, and ignore all others.

    A slip is a name that certainly stands for a known one. Others are for somebody else: a
    parameter against caches, or one of a proxy. A slip that is ignored is worse than an error:
    without ``merchant_id``, a client listens to all merchants of its token, whichever these are.

    Raises:
        InvalidQuery: a slip is in the query.
    """
    query: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name in known:
            query.setdefault(name, []).append(value)
        elif (found := nearest(name, known)) is not None:
            shown = ascii(name)[1:-1]
            raise InvalidQuery(
                f"expected {found}, got {shown}{suggest(name, known)}",
                reason=RefusalReason.UNKNOWN_PARAMETER,
                who=f"parameter {shown} for {found}",
            )
    return query


def only(query: Mapping[str, list[str]], name: str) -> str | None:
    """Return the value of a parameter, or None.

    Raises:
        InvalidQuery: the parameter stands in the query several times.
    """
    values = query.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise InvalidQuery(f"{name}: expected once in the query, got {len(values)} times")
    return values[0]


def refuse_parameters(request: Request[Any], fields: tuple[str, ...]) -> None:
    """Refuse any parameter where all is in the body; ``fields`` are those of the body.

    Raises:
        InvalidQuery: the URL has a query with a parameter.
    """
    if not request.scope["query_string"]:
        return  # as almost every request; making the parameters of an empty query takes 2 µs
    for name in request.query_params:
        raise InvalidQuery(
            f"expected all fields in the body, got {ascii(name)[:80]} in the URL"
            f"{suggest(name, fields)}",
            reason=RefusalReason.UNKNOWN_PARAMETER,
        )
