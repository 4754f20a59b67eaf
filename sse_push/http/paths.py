"""The paths of the service: the one list."""

from __future__ import annotations

EVENTS = "/events"
NOTIFY = "/notify"
REVOKE = "/revoke"
HEALTHZ = "/healthz"
READYZ = "/readyz"
METRICS = "/metrics"
OPENAPI = "/openapi.json"
SWOOLE = "/"

ALL = frozenset({EVENTS, NOTIFY, REVOKE, HEALTHZ, READYZ, METRICS, OPENAPI, SWOOLE})
