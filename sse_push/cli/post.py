"""A request of ``notify`` and ``revoke``."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx2

from sse_push.errors import PushError
from sse_push.runtime.logs import printable
from sse_push.runtime.variables import KEY_VARIABLE, URL_VARIABLE

_TIMEOUT_S = 10
"""Three times what the service takes at most, by its default ``notify_timeout_s``."""

_HINTS = {
    401: f"; expected one of its notify_keys in {KEY_VARIABLE}",
    404: f"; expected the address of the service in {URL_VARIABLE}",
    405: f"; expected the address of the service in {URL_VARIABLE}",
}


def post(
    url: str, path: str, body: Mapping[str, object], key: str | None, *, as_json: bool = False
) -> str:
    """Post to the service, and return the ID of what Redis has stored, or the answer as JSON.

    Raises:
        PushError: nobody answers, or the answer is no ID.
    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    content = json.dumps(body)  # in ASCII, whatever bytes were typed
    try:
        answer = httpx2.post(
            f"{url.rstrip('/')}{path}", content=content, headers=headers, timeout=_TIMEOUT_S
        )
    except (httpx2.TransportError, httpx2.InvalidURL) as exc:
        cause = str(exc) or type(exc).__name__
        raise PushError(f"expected the service at {url}, got: {cause}") from exc
    if answer.status_code != 200:
        hint = _HINTS.get(answer.status_code, "")
        raise PushError(f"{url} answered {answer.status_code}: {answer.text[:500]}{hint}")
    try:
        stored_id = answer.json()["id"]
    except (ValueError, LookupError, TypeError):
        raise PushError(
            f"expected the ID of a record from {url}, got {answer.text[:200]!r}; expected the "
            f"address of the service in {URL_VARIABLE}"
        ) from None
    return json.dumps({"id": stored_id}) if as_json else printable(str(stored_id))
