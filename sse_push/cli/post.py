"""A request of ``notify`` and ``revoke``."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from sse_push.errors import PushError
from sse_push.runtime.logs import printable


def post(url: str, path: str, body: Mapping[str, object], key: str | None) -> str:
    """Post to the service, and return the ID of what Redis has stored."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx2.post(f"{url.rstrip('/')}{path}", json=body, headers=headers, timeout=10)
    except (httpx2.TransportError, httpx2.InvalidURL) as exc:
        raise PushError(f"expected the service at {url}, got: {exc}") from exc
    if answer.status_code != 200:
        raise PushError(f"{url} answered {answer.status_code}: {answer.text[:500]}")
    stored_id: str = answer.json()["id"]
    return printable(stored_id)
