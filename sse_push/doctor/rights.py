"""Who may listen and who may notify, as the answers show it: from observations to results.

Knows the credentials of pages and backends, and the errors of the service. Does not ask anything
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sse_push.doctor.asking import Answer
from sse_push.doctor.faults import Fault, Result
from sse_push.doctor.reading import object_of
from sse_push.doctor.target import Target
from sse_push.errors import Refusal

HELD_S = 0.15
"""How late the quickest of several events may be; HAProxy holds each for 0.2 s."""

NOTHING_SHOWN = ("expected a token: ", "expected a session")
"""How the service, and nginx for a backend, begin their 401 to a request without credentials."""


# -- who may listen


def judge_anyone(bare: Answer) -> Result:
    """Tell who may listen, by the answer to a request without credentials."""
    tried = "GET /events without credentials"
    if bare.is_event_stream:
        got = "a stream: anyone may listen to any merchant (subscribe_auth=none)"
        return Result("access", tried, got, is_note=True)
    return Result("access", tried, str(bare), is_note=bare.status not in (401, 403))


def judge_spoofing(bare: Answer, spoofed: Answer) -> Result:
    """Judge whether a client may name its merchant itself."""
    tried = "HEAD /events with an X-Merchant-Id of its own"
    if not bare.is_event_stream and spoofed.status == 200:
        return Result("spoofing", tried, "200, where none is refused", Fault.SPOOFED)
    return Result("spoofing", tried, "no more than without it")


def judge_authorization(answer: Answer) -> Result:
    """Judge whether a token in the header Authorization reaches the service."""
    tried = "HEAD /events with the token in Authorization"
    fault = None if answer.status == 200 else Fault.AUTHORIZATION
    return Result("token", tried, f"{answer.status or answer}", fault)


def judge_cookie(bare: Answer, answer: Answer) -> Result:
    """Judge whether a cookie reaches the service, or the backend that nginx asks."""
    tried = "GET /events with the cookie alone"
    if bare.is_event_stream:
        return Result("cookie", tried, "not examined: anyone may listen", is_note=True)
    if answer.is_event_stream:
        return Result("cookie", tried, "200: it reaches the service")
    detail = str(object_of(answer.body).get("detail", ""))
    is_seen = answer.status in (400, 401, 403) and detail.startswith("expected")
    is_seen = is_seen and not detail.startswith(NOTHING_SHOWN)
    return Result("cookie", tried, str(answer), Fault.REFUSED if is_seen else Fault.COOKIE)


def judge_origin(target: Target, answer: Answer) -> Result:
    """Judge whether a page of another origin may listen."""
    origin = target.origin
    tried = f"HEAD /events with Origin: {origin}"
    allowed = answer.headers.get("access-control-allow-origin", "none")
    got = f"{answer.status or answer}, Access-Control-Allow-Origin: {allowed}"
    if origin == target.address.origin and answer.status == 200:
        return Result("origin", tried, "200, and the origin is that of the stream")
    has_credentials = answer.headers.get("access-control-allow-credentials") == "true"
    is_allowed = allowed == origin or (allowed == "*" and not target.cookies)
    if answer.status == 200 and is_allowed and (has_credentials or not target.cookies):
        return Result("origin", tried, got)
    return Result("origin", tried, got, Fault.CORS)


# -- backends


def judge_closed(target: Target, answers: Mapping[str, Answer]) -> Result:
    """Judge whether what is for backends and monitoring answers at the address of browsers."""
    tried = f"ask for {', '.join(answers)} without a key"
    found = [path for path, answer in answers.items() if _is_of_service(answer)]
    if not found:
        got = ", ".join(f"{answer.status or 'no answer'}" for answer in answers.values())
        return Result("closed", tried, got)
    got = f"the service answers {', '.join(found)}"
    notify = target.notify_address
    if target.address.is_local or (notify is not None and notify.origin == target.address.origin):
        return Result("closed", tried, f"{got}, at an address that you call your own", is_note=True)
    return Result("closed", tried, got, Fault.OPEN_TO_ALL)


def _is_of_service(answer: Answer) -> bool:
    """Return whether the service answers, and not something in front that knows no such path."""
    if answer.status == 200:
        return b"sse_push_" in answer.body
    codes = {each.value for each in (Refusal.UNAUTHORIZED, Refusal.MALFORMED, Refusal.UNSUPPORTED)}
    return object_of(answer.body).get("error") in codes


def judge_notify(
    answer: Answer, delays_s: Sequence[float | None], stream: Answer, *, is_held: bool
) -> Result:
    """Judge whether a notification arrives, and when; ``None``: it did not within the limit.

    ``is_held``: heartbeats do not arrive either.
    """
    tried = "POST /notify, and wait for its refresh on the stream"
    if answer.status != 200:
        return Result("delivery", tried, str(answer), Fault.NOTIFY)
    if stream.has_ended and None in delays_s:
        return Result("delivery", tried, "not examined: the stream has ended", is_note=True)
    arrived = [each for each in delays_s if each is not None]
    if len(arrived) < len(delays_s):
        return Result(
            "delivery", tried, "200, and no refresh", Fault.BUFFERING if is_held else Fault.LOST
        )
    best_s = min(arrived)
    got = f"refreshes {', '.join(f'{each * 1000:.0f} ms' for each in arrived)} after the answer"
    return Result("delivery", tried, got, Fault.LATE if best_s > HELD_S else None)


def judge_body(answer: Answer, size_bytes: int) -> Result:
    """Judge whether a body as large as the service permits reaches it."""
    tried = f"POST /notify of {size_bytes} bytes, most of them blanks"
    if answer.status == 200:
        return Result("body", tried, "200")
    if answer.status in (0, 413):
        return Result("body", tried, str(answer), Fault.BODY_LIMIT)
    return Result("body", tried, str(answer), is_note=True)
