"""A client of a guarded service, and what its answers are."""

from __future__ import annotations

import httpx2

LIMITED_KEY = "a-key-for-some-0d4b7a92e6c1f8355b2e"
COOKIE = "__Host-push"
APP = "https://app.test"


async def status_of(client: httpx2.AsyncClient, query: str = "", **headers: str) -> int:
    """Return the status of an event stream, without waiting for its end."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", f"/events?{query}", headers=named) as answer:
        return answer.status_code


def refused(answer: httpx2.Response) -> tuple[int, str, str]:
    """Return status, code and detail of an error."""
    body = answer.json()
    assert body.keys() == {"error", "detail"}
    return answer.status_code, body["error"], body["detail"]
