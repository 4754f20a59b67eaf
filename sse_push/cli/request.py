"""The commands that send requests to a service: what a backend and a browser do, by hand.

Knows flags, and the URL and the paths of the service. Does not know how the service runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime

import click
import httpx2

from sse_push.access.tokens import sign
from sse_push.errors import ConfigError, InvalidEntryId, PushError
from sse_push.http import paths
from sse_push.notification import EventId, parse_merchant_id
from sse_push.runtime.logs import printable
from sse_push.settings import KEY_VARIABLE, TOKEN_VARIABLE, Settings
from sse_push.sse_client import Event, StateChange, follow

_HOST, _PORT = (Settings.model_fields[name].default for name in ("host", "port"))
_URL = f"http://{_HOST}:{_PORT}"
"""Where a service with the default settings listens."""
_CANCEL_S = 0.5
"""How often ``tail`` repeats the cancellation of its client."""

_url_option = click.option("--url", default=_URL, show_default=True, help="URL of the service")
_key_option = click.option("--key", envvar=KEY_VARIABLE, help="key of notify_keys")


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--topic", help="part of the merchant's data that has changed")
@click.option("--data", metavar="JSON", help="details of the change, as JSON")
@click.option("--by", help="tab or user that made the change")
@_url_option
@_key_option
def notify(*, data: str | None, url: str, key: str | None, **fields: str | None) -> int:
    """Tell every browser of MERCHANT to refresh. Print the ID of the notification.

    \b
    Example:
      sse-push notify 42 --topic seats --data '{"seat": "C7"}'
    """
    body: dict[str, object] = {**fields}
    if data is not None:
        try:
            body["data"] = json.loads(data)
        except ValueError as exc:
            raise click.BadParameter(f"expected JSON, got {data!r}", param_hint="--data") from exc
    click.echo(_post(url, paths.NOTIFY, body, key))
    return 0


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--jti", help="revoke only the token with this ID")
@click.option("--sub", help="revoke only the tokens of this subject")
@_url_option
@_key_option
def revoke(*, url: str, key: str | None, **fields: str | None) -> int:
    """Revoke the tokens of MERCHANT. Print the ID of the revocation.

    Ends the connections of these tokens, and refuses the tokens from now on. Tokens that are issued
    in a later second are valid.

    \b
    Example:
      sse-push revoke 42 --sub user-7
    """
    click.echo(_post(url, paths.REVOKE, fields, key))
    return 0


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@_url_option
@click.option("--last-event-id", default="", metavar="ID", help="resume after this event")
@click.option("--heartbeats", is_flag=True, help="also print heartbeats")
@click.option("--token", envvar=TOKEN_VARIABLE, help="token, as `sse-push token` prints")
def tail(
    *, merchant_id: str, url: str, last_event_id: str, heartbeats: bool, token: str | None
) -> None:
    """Listen as a browser does, and print events, until Ctrl-C.

    Each event has its age: the time since Redis stored the notification, by this machine's clock.

    \b
    Example:
      sse-push tail 42
    """
    events_url = httpx2.URL(f"{url.rstrip('/')}{paths.EVENTS}", params={"merchant_id": merchant_id})
    listening = _listen(str(events_url), last_event_id, token, heartbeats=heartbeats)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_sigint(listening))


@click.command()
@click.argument("merchants", metavar="MERCHANT...", nargs=-1, required=True)
@click.option("--expires-in", default="15m", show_default=True, help="as in 90s, 15m or 1h")
@click.option("--sub", help="subject, such as a user: its tokens can be revoked together")
@click.option("--jti", help="ID of the token  [default: random]")
def token(*, merchants: tuple[str, ...], expires_in: str, sub: str | None, jti: str | None) -> int:
    """Print a token for MERCHANT, to try the service out.

    The token lets a client listen to MERCHANT. It is signed with HS256 and the first of
    SSE_PUSH_TOKEN_KEYS, and has the aud and the iss that the service expects. A backend signs its
    own tokens, with any JWT library.

    \b
    Example:
      SSE_PUSH_TOKEN_KEYS=$SECRET sse-push token 42 --expires-in 15m
    """
    settings = Settings.load()
    if not settings.token_keys:
        raise ConfigError(
            "token_keys (SSE_PUSH_TOKEN_KEYS): expected an HMAC secret to sign with, got none"
        )
    lifetime_s = _parse_duration(expires_in)
    if not 1 <= lifetime_s <= settings.token_max_lifetime_s:
        raise click.BadParameter(
            f"expected 1 s to {settings.token_max_lifetime_s:g} s (token_max_lifetime_s), "
            f"got {expires_in!r}",
            param_hint="--expires-in",
        )
    text = sign(
        settings.token_keys[0],
        [parse_merchant_id(merchant) for merchant in merchants],
        lifetime_s=lifetime_s,
        subject=sub,
        token_id=jti,
        audience=settings.token_audience,
        issuer=settings.token_issuer,
    )
    click.echo(text)
    return 0


def _post(url: str, path: str, body: Mapping[str, object], key: str | None) -> str:
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


def _parse_duration(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise click.BadParameter(
            f"expected a time as in 90s, 15m or 1h, got {text!r}", param_hint="--expires-in"
        )
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


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


async def _listen(url: str, last_event_id: str, token: str | None, *, heartbeats: bool) -> None:
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
