"""The parts of one serving process, built from its settings.

Knows every part by its constructor. Does not know HTTP, nor what the parts do.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from sse_push.access.gate import Gate
from sse_push.access.keyless import Keyless
from sse_push.access.origin import Origins
from sse_push.access.proxies import Proxies
from sse_push.access.rate import Rates
from sse_push.access.revocation import Revocations
from sse_push.access.room import Room
from sse_push.access.token_keys import load_keys
from sse_push.access.tokens import TokenRules
from sse_push.event_stream import EventStreams, Frame, Gaps, wire
from sse_push.hub import Hub, Pace
from sse_push.metrics import Metrics
from sse_push.runtime.readiness import WorkerBoard
from sse_push.runtime.refusals import Refusals
from sse_push.runtime.uvicorn import OTHER_CONNECTIONS, Requests, Waiting
from sse_push.settings import Settings
from sse_push.stream import Adds, Follows, Keys, Login, Store, Terms

_REPORT_INTERVAL_S = 1.0


class State(TypedDict):
    """The parts that endpoints use; the ASGI state of each request."""

    settings: Settings
    gate: Gate
    origins: Origins
    appender: Adds
    follower: Follows
    hub: Hub[Frame]
    event_streams: EventStreams
    board: WorkerBoard
    rates: Rates
    requests: Requests
    refusals: Refusals
    keyless: Keyless
    leaving: asyncio.Event
    """Set while the service goes on serving, though it is about to stop."""
    metrics: Metrics
    openapi: bytes


def build(
    settings: Settings, rules: TokenRules | None, origins: Origins, folder: Path, openapi: bytes
) -> State:
    """Return the parts of a process, of which none runs yet; called in its event loop."""
    hub = _hub(settings)
    follower, appender = _store(settings, hub)
    hub.source = follower
    event_streams = _event_streams(settings, hub, follower)
    refusals, keyless = Refusals(), _keyless(settings)
    board = _board(folder, follower)
    metrics = Metrics(
        board,
        folder,
        hub=hub,
        follower=follower,
        appender=appender,
        event_streams=event_streams,
        refusals=refusals,
        keyless=keyless,
        connections_limit=settings.max_connections,
    )
    hub.on_fan_out = metrics.observe_fan_out
    return State(
        settings=settings,
        gate=_gate(settings, rules),
        origins=origins,
        appender=appender,
        follower=follower,
        hub=hub,
        event_streams=event_streams,
        board=board,
        rates=_rates(settings),
        requests=_requests(settings, refusals),
        refusals=refusals,
        keyless=keyless,
        leaving=asyncio.Event(),
        metrics=metrics,
        openapi=openapi,
    )


def token_rules(settings: Settings) -> TokenRules | None:
    """Return what makes a token valid, or None unless tokens decide who may listen.

    Raises:
        ConfigError: the keys of tokens can't be used.
    """
    if not settings.has_tokens:
        return None
    return TokenRules(
        keys=load_keys(settings.token_keys, settings.token_keys_file, settings.token_algorithms),
        audience=settings.token_audience,
        issuer=settings.token_issuer,
        leeway_s=settings.token_leeway_s,
        max_lifetime_s=settings.token_max_lifetime_s,
    )


def room_of(settings: Settings) -> Room:
    """Return the places of the process."""
    return Room(
        max_connections=settings.max_connections,
        max_connections_per_merchant=settings.max_connections_per_merchant,
        max_connections_per_address=settings.max_connections_per_address,
    )


async def report(state: State, tell_well: Callable[[], object]) -> None:
    """Once a second, write this worker's state to the board, copy and log what was counted.

    ``tell_well`` is called each time, unless Redis takes entries that do not come back: while Redis
    is away, a process that is started anew would do no better.

    A worker without the revocations of tokens is as old as when it last had them: it could let a
    revoked token in.
    """
    settings, follower = state["settings"], state["follower"]
    # So that what is late (``Member.is_late``) has been reported before its deadline is over.
    step_s = min(_REPORT_INTERVAL_S, settings.probe_interval_s, settings.probe_deadline_s / 6)
    known_at = -math.inf
    while True:
        if not settings.has_tokens or follower.knows_revocations:
            known_at = time.monotonic()
        unknown_s = time.monotonic() - known_at
        state["board"].write(max(follower.age_s, unknown_s))
        if follower.is_well:
            tell_well()
        due_at = time.monotonic() + step_s
        await asyncio.sleep(step_s)
        state["metrics"].observe_lag(max(0.0, time.monotonic() - due_at))
        state["metrics"].update()
        state["refusals"].log_due()


# -- each part


def _hub(settings: Settings) -> Hub[Frame]:
    return Hub(
        encode=wire.encode_refreshes,
        encode_expiring=wire.encode_expiring,
        heartbeat=wire.HEARTBEAT,
        pace=_pace(settings),
        revocations=Revocations(settings.revocation_lifetime_s, settings.token_leeway_s),
        clock=asyncio.get_running_loop(),
    )


def _store(settings: Settings, hub: Hub[Frame]) -> Store:
    assert settings.redis_url is not None, "the embedded server's, or refused at the start"
    terms = Terms(
        keys=Keys(settings.key_prefix),
        bell=settings.bell,
        wait_replicas=settings.wait_replicas,
        data_limit_bytes=settings.data_limit_bytes,
        notify_timeout_s=settings.notify_timeout_s,
        stream_max_entries=settings.stream_max_entries,
        stream_ttl_s=settings.stream_ttl_s,
        revocation_lifetime_s=settings.revocation_lifetime_s,
        max_planted=settings.max_planted,
        probe_interval_s=settings.probe_interval_s,
        probe_deadline_s=settings.probe_deadline_s,
        deaf_limit_s=settings.deaf_limit_s,
        sweep_s=settings.sweep_s,
    )
    url, login = settings.redis_url.get_secret_value(), Login(*settings.sentinel_login)
    return Store.at(url, login, hub, terms)


def _pace(settings: Settings) -> Pace:
    return Pace(
        heartbeat_s=settings.heartbeat_s,
        refresh_interval_s=settings.refresh_interval_ms / 1000,
        send_timeout_s=settings.send_timeout_s,
        max_connection_age_s=settings.max_connection_age_s,
        drain_s=settings.drain_s,
        token_expiring_s=settings.token_expiring_s,
    )


def _event_streams(settings: Settings, hub: Hub[Frame], follower: Follows) -> EventStreams:
    return EventStreams(
        hub=hub,
        gaps=Gaps(follower),
        heartbeat_s=settings.heartbeat_s,
        retry_ms=settings.retry_ms,
        soft_retry_min_ms=settings.soft_retry_min_ms,
        soft_retry_max_ms=settings.soft_retry_max_ms,
        send_timeout_s=settings.send_timeout_s,
        send_buffer_bytes=settings.send_buffer_bytes,
        poll_interval_s=settings.poll_interval_s,
    )


def _gate(settings: Settings, rules: TokenRules | None) -> Gate:
    assert settings.subscribe_auth is not None, "refused at the start"
    return Gate(
        settings.subscribe_auth,
        proxies=Proxies(settings.trusted_proxies, is_unix_socket=settings.uds is not None),
        max_merchants=settings.max_merchants_per_connection,
        digest_key=_digest_key(settings),
        token_rules=rules,
        token_cookie=settings.token_cookie,
    )


def _digest_key(settings: Settings) -> bytes:
    """Return the key of the digests of rights: one for all processes with the same secrets."""
    keys = () if settings.notify_keys in (None, "none") else settings.notify_keys
    secrets = [each.secret.get_secret_value() for each in (*keys, *settings.token_keys)]
    text = "\n".join(["sse-push rights", *sorted(secrets)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _board(folder: Path, follower: Follows) -> WorkerBoard:
    board = WorkerBoard(folder)
    board.write(follower.age_s)
    return board


def _keyless(settings: Settings) -> Keyless:
    return Keyless(settings.trusted_backends, settings.allowed_hosts or ())


def _rates(settings: Settings) -> Rates:
    assert settings.notify_keys is not None, "refused at the start"
    return Rates(
        settings.notify_keys,
        rate_per_s=settings.notify_rate_per_s,
        burst=settings.notify_burst,
        workers=settings.workers,
        has_keyless=settings.swoole_compat == "on",
    )


def _requests(settings: Settings, refusals: Refusals) -> Requests:
    clock = asyncio.get_running_loop()
    return Requests(
        header_limit_bytes=settings.header_limit_bytes,
        timeout_s=settings.request_timeout_s,
        refusals=refusals,
        waiting=Waiting(
            limit=settings.max_connections + OTHER_CONNECTIONS,
            send_timeout_s=settings.send_timeout_s,
            clock=clock,
        ),
        clock=clock,
    )
