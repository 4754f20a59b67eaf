"""What ``sse-push tail`` does: listen as a browser does, and print."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from urllib.parse import urlencode

import click
import httpx2

from sse_push.errors import InvalidEntryId
from sse_push.http import paths
from sse_push.notification import EventId
from sse_push.runtime.logs import printable
from sse_push.sse_client import Event, StateChange, follow

_CANCEL_S = 0.5
"""How often ``tail`` repeats the cancellation of its client."""


def listen(
    url: str, merchant_id: str, last_event_id: str, token: str | None, *, heartbeats: bool
) -> None:
    """Print the events of a merchant until SIGINT.

    Raises:
        GaveUp: the answer was no event stream.
    """
    query = urlencode({"merchant_id": merchant_id}, errors="surrogateescape")
    events_url = f"{url.rstrip('/')}{paths.EVENTS}?{query}"
    _print_line(f"GET {events_url}")
    printing = _print_events(events_url, last_event_id, token, heartbeats=heartbeats)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_sigint(printing))


async def _until_sigint(work: Coroutine[None, None, None]) -> None:
    """Run until SIGINT, then cancel until the work ends: a library may swallow a cancellation."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
    while not working.done():
        working.cancel()
        await asyncio.wait([working], timeout=_CANCEL_S)


async def _print_events(
    url: str, last_event_id: str, token: str | None, *, heartbeats: bool
) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers) as client:
        async for got in follow(client, url, last_event_id):
            if isinstance(got, StateChange):
                _print_line(f"{got.state}{f' {got.why}' if got.why else ''}")
            elif got.type != "heartbeat" or heartbeats:
                _print_line(f"{got.type:9} {_age(got):>9} {got.id or '-':22} {got.data}")


def _age(event: Event) -> str:
    try:
        age_ms = time.time() * 1000 - EventId.parse(event.id).entry_id.ms
    except InvalidEntryId:
        return "-"
    return f"{age_ms:.0f} ms" if event.type == "refresh" else "-"


def _print_line(text: str) -> None:
    click.echo(f"{datetime.now(UTC).astimezone():%H:%M:%S.%f}"[:-3] + f" {printable(text)}")
