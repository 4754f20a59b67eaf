"""What may be wrong on the way from a browser to the service: each fault, and what mends it.

Knows the directives of nginx and the settings by their names. Does not know how a fault is noticed.
A path in a text is that in the repository; ``sse-push docs`` prints where the installed docs are.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sse_push.runtime.finding import Finding, Level

OTHER_PROXIES = ". Other proxies: docs/proxies.md"


class Fault(enum.Enum):
    """What is wrong: the list of faults. ``remedy``: what to set, and where."""

    level: Level
    remedy: str

    def __new__(cls, name: str, level: Level, remedy: str) -> Self:
        """Make a member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.level = level
        member.remedy = remedy
        return member

    UNREACHABLE = (
        "unreachable",
        "failure",
        "the name must resolve to the proxy, the proxy must `listen` there, and a firewall let it",
    )
    CERTIFICATE = (
        "certificate",
        "failure",
        "nginx `ssl_certificate`: a valid one for this name, with the chain of its issuers; "
        "for one of your own, --ca-file here",
    )
    CERTIFICATE_EXPIRES = (
        "certificate_expires",
        "warning",
        "renew the certificate, and reload the proxy after each renewal",
    )
    PLAIN_HTTP = (
        "plain_http",
        "warning",
        "serve by TLS and HTTP/2, as nginx/nginx-tls.conf does: tokens cross the network in the "
        "clear, and a browser opens six streams to this address, all its tabs together",
    )
    SIX_STREAMS = (
        "six_streams",
        "warning",
        "nginx `listen 443 ssl http2` (from 1.25.1 on: `http2 on`): over HTTP/1.1 a browser opens "
        "six streams to this address, all its tabs together, and the seventh tab hangs",
    )
    REDIRECT = (
        "redirect",
        "failure",
        "give pages the address after the redirect, and no `return 301` for /events: Firefox comes "
        "back to the old address. Then ask doctor again, with the new address",
    )
    NO_ANSWER = (
        "no_answer",
        "failure",
        "is this the proxy of the service? Its error log says why it does not answer",
    )
    WRONG_ANSWER = (
        "wrong_answer",
        "failure",
        "nginx: `location = /events` with `proxy_pass` to the service (nginx/snippets/events.conf)",
    )
    SERVICE_DOWN = (
        "service_down",
        "failure",
        "does the service run (`sse-push check`), and does `upstream` of nginx lead to it? "
        "If it runs on a Unix socket: may nginx enter the folder of the socket?",
    )
    NOT_SERVED = (
        "not_served",
        "failure",
        "the table of reasons in docs/reference.md says which limit was reached",
    )
    HARD_ANSWER = (
        "hard_answer",
        "failure",
        "nginx/snippets/soft-answers.conf, and `error_page 429 500 502 503 504` in "
        "`location = /events`: after any status but 200 an EventSource never comes back",
    )
    REFUSED = (
        "refused",
        "failure",
        "a token as docs/access.md has it (--token or SSE_PUSH_TOKEN here), or the cookie of a "
        "session (--cookie)",
    )
    HOST = (
        "host",
        "failure",
        "SSE_PUSH_ALLOWED_HOSTS: the names of this site; nginx `proxy_set_header Host $http_host`, "
        "and `server_name`",
    )
    COMPRESSION = (
        "compression",
        "failure",
        "nginx `gzip off` (and `brotli off`) in `location = /events`: a compressed stream is held "
        "back, or costs memory for each browser",
    )
    BUFFERING = (
        "buffering",
        "failure",
        "nginx `proxy_buffering off` and `proxy_http_version 1.1` in `location = /events`, and no "
        "`proxy_ignore_headers X-Accel-Buffering`; another proxy in front may buffer as well",
    )
    LATE = (
        "late",
        "warning",
        "HAProxy `option http-no-delay`, nginx `tcp_nodelay on`; or is a machine on the way busy?",
    )
    CACHE = (
        "cache",
        "failure",
        "nginx `proxy_cache off` in `location = /events`; in a CDN, a rule that bypasses the cache",
    )
    CACHE_CONTROL = (
        "cache_control",
        "warning",
        "pass the Cache-Control of the service on: no `expires`, `proxy_hide_header` or "
        "`proxy_ignore_headers` of it in `location = /events`",
    )
    IDLE_CUT = (
        "idle_cut",
        "failure",
        "nginx `proxy_read_timeout 75s` in `location = /events`, and as much in every proxy in "
        "front: more than two heartbeats; or a lower SSE_PUSH_HEARTBEAT_S",
    )
    HTTP_1_0 = (
        "http_1_0",
        "failure",
        'nginx `proxy_http_version 1.1` and `proxy_set_header Connection ""` in '
        "`location = /events`: with 1.0 the end of a stream can't be told from a cut",
    )
    COOKIE = (
        "cookie",
        "failure",
        "no `proxy_set_header Cookie` in `location = /events`; and SSE_PUSH_TOKEN_COOKIE must be "
        "the name of this cookie, or your backend must know it (`auth_request`)",
    )
    AUTHORIZATION = (
        "authorization",
        "warning",
        "no `proxy_set_header Authorization` in `location = /events`: programs send their token "
        "there (an EventSource has it in the URL)",
    )
    SPOOFED = (
        "spoofed",
        "failure",
        "nginx `proxy_set_header X-Merchant-Id $sse_push_merchant_id` for each request: as it is, "
        "a client names its own merchant",
    )
    LAST_EVENT_ID = (
        "last_event_id",
        "warning",
        "let the request header Last-Event-ID through: without it, each reconnection makes each "
        "browser fetch once",
    )
    CORS = (
        "cors",
        "failure",
        "SSE_PUSH_ALLOWED_ORIGINS: this origin; and in nginx `map $http_origin $sse_push_origin`, "
        "for its own soft answers",
    )
    OPEN_TO_ALL = (
        "open_to_all",
        "failure",
        "`location = /notify`, /revoke and /metrics on an internal server only, as in "
        "nginx/conf.d/sse-push.conf; the public one answers 404",
    )
    CLOCK = (
        "clock",
        "warning",
        "let both machines follow NTP: the exp and iat of a token are compared with the clock",
    )
    NOTIFY = (
        "notify",
        "failure",
        "--notify-url is the address for backends, and SSE_PUSH_NOTIFY_KEY one of notify_keys that "
        "may notify this merchant",
    )
    LOST = (
        "lost",
        "failure",
        "do --notify-url and this address lead to services with the same Redis and database? "
        "`sse-push check` examines Redis",
    )
    BODY_LIMIT = (
        "body_limit",
        "failure",
        "nginx `client_max_body_size 1m` and `client_body_buffer_size 1m` in `location = /notify`, "
        "as large as SSE_PUSH_BODY_LIMIT_BYTES",
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What one check has shown: what was tried, what was got, and the fault, if that is one.

    ``is_note``: neither good nor bad, such as something that could not be examined, and why.
    """

    check: str
    tried: str
    got: str
    fault: Fault | None = None
    is_note: bool = False

    @property
    def finding(self) -> Finding:
        """The same as a line for people, with what to do; its name is that of the fault."""
        text = f"{self.check}: {self.tried}; got {self.got}"
        if self.fault is None:
            return Finding("note" if self.is_note else "ok", self.check, text)
        others = OTHER_PROXIES if "`location = /" in self.fault.remedy else ""
        text = f"{text}. To do: {self.fault.remedy}{others}"
        return Finding(self.fault.level, self.fault.value, text)


def has_failed(results: Iterable[Result]) -> bool:
    """Return whether a fault among these is a failure."""
    return any(each.fault is not None and each.fault.level == "failure" for each in results)
