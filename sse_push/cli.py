"""The command line: each command reads its flags, calls one part of the package, and prints.

Knows flags, and how to build the settings. Does not know Redis, nor how requests are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from sse_push import __version__
from sse_push.access.tokens import TokenRules, sign
from sse_push.demo import run_demo
from sse_push.errors import ConfigError, InvalidEntryId, PushError
from sse_push.http.app import token_rules
from sse_push.notification import EntryId, parse_merchant_id
from sse_push.runtime.embedded import embedded_server
from sse_push.runtime.logs import configure_logging
from sse_push.server import serve as serve_until_signal
from sse_push.settings import KEY_VARIABLE, PREFIX, TOKEN_VARIABLE, Settings
from sse_push.sse_client import Event, StateChange, follow
from sse_push.stream import examine

_URL = "http://127.0.0.1:8000"
_DOCS = Path(__file__).with_name("docs")
_CHOICES = {
    "subscribe_auth": "`token`: anyone with a token, `header`: clients whose merchant a proxy "
    "names, `none`: anyone",
    "notify_keys": "the keys that may notify, comma-separated, or `none`: anyone",
    "redis_url": "the URL of a Redis; --embedded starts a private server instead",
}
_CANCEL_S = 0.5
"""How often `tail` repeats the cancellation of its client."""
_OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sse-push")
def main() -> None:
    """Push service: tells every open browser of a merchant that its data has changed.

    Start with `sse-push demo`. Every setting can also be given as a variable SSE_PUSH_<NAME>.
    `sse-push docs` prints where the documentation is.
    """


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(_OPTIONS_OF_SERVE):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f"  [default: {field.default}]"
        text = f"{(field.description or '').replace('`', '')}{default}"
        command = click.option(flag, name, metavar="VALUE", help=text)(command)
    return command


_url_option = click.option("--url", default=_URL, show_default=True, help="URL of the service")
_key_option = click.option("--key", envvar=KEY_VARIABLE, help="key of notify_keys")


@main.command()
@_settings_options
@click.option("--embedded", is_flag=True, help="start a private valkey-server; no redis_url")
def serve(*, embedded: bool, **flags: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C. Then end every connection in order, and exit with 0.

    Does not start without --subscribe-auth (who may listen) and --notify-keys (who may notify).

    \b
    Example:
      sse-push serve --redis-url redis://127.0.0.1:6379/0 \\
          --subscribe-auth none --notify-keys "$(openssl rand -hex 24)"
    """
    settings = Settings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    _require(settings, "subscribe_auth", "notify_keys", *([] if embedded else ["redis_url"]))
    if embedded and settings.redis_url is not None:
        raise ConfigError("expected either --embedded or redis_url, got both")
    token_rules(settings)  # a broken key file is reported here, once, and not by each worker
    with embedded_server() if embedded else contextlib.nullcontext() as url:
        return serve_until_signal(settings if url is None else _with_redis(settings, url))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=8000, show_default=True, help="port to listen on; 0: any free one")
@click.option("--crowd", default=0, metavar="N", show_default=True, help="simulated buyers")
@click.option("--redis-url", help="Redis to use, instead of a private valkey-server")
@click.option("--tokens", is_flag=True, help="require tokens, which the cinema's backend issues")
def demo(*, host: str, port: int, crowd: int, redis_url: str | None, tokens: bool) -> int:
    """Run a small cinema, to try the service out.

    Open its page in two windows, and sell a seat in one. Everything is on one port, and anyone who
    can reach the port may use it.

    \b
    Example:
      sse-push demo --crowd 200
    """
    token_key = secrets.token_hex(32) if tokens else None
    with contextlib.nullcontext(redis_url) if redis_url else embedded_server() as url:
        settings = Settings.load(
            host=host,
            port=port,
            redis_url=url,
            subscribe_auth="token" if tokens else "none",
            token_keys=token_key,
            notify_keys="none",
            drain_s=5.0,
        )
        configure_logging(settings.log_level, settings.log_format)
        return run_demo(settings, token_key, crowd, click.echo)


@main.command()
@_settings_options
def check(**flags: str | None) -> int:
    """Print the settings, and examine Redis: does it announce a change?

    Exits with 0 if the service would work (maybe with warnings), or 1 if it would not.

    \b
    Example:
      sse-push check --redis-url redis://127.0.0.1:6379/0
    """
    settings = Settings.load(**flags)
    for name, text in settings.safe().items():
        click.echo(f"{name:24} {text}")
    rules = token_rules(settings)
    if rules is not None:
        _print_keys(rules)
    if settings.redis_url is None:
        raise ConfigError("redis_url: expected the URL of the Redis to check, got none")
    url = settings.redis_url.get_secret_value()
    findings = asyncio.run(examine(url, timeout_s=settings.notify_timeout_s))
    click.echo()
    for finding in findings:
        click.echo(f"{finding.level:8} {finding.text}")
    return 1 if any(finding.level == "failure" for finding in findings) else 0


@main.command()
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
    click.echo(_post(url, "/notify", body, key))
    return 0


@main.command()
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
    click.echo(_post(url, "/revoke", fields, key))
    return 0


@main.command()
@click.argument("merchant_id", metavar="MERCHANT")
@_url_option
@click.option("--last-event-id", default="", metavar="ID", help="resume after this event")
@click.option("--heartbeats", is_flag=True, help="also print heartbeats")
@click.option("--token", envvar=TOKEN_VARIABLE, help="token, as `sse-push token` prints")
def tail(
    *, merchant_id: str, url: str, last_event_id: str, heartbeats: bool, token: str | None
) -> int:
    """Listen as a browser does, and print events, until Ctrl-C.

    Each event has its age: the time since Redis stored the notification, by this machine's clock.

    \b
    Example:
      sse-push tail 42
    """
    events_url = httpx.URL(f"{url.rstrip('/')}/events", params={"merchant_id": merchant_id})
    listening = _listen(str(events_url), last_event_id, token, heartbeats=heartbeats)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_sigint(listening))
    return 0


@main.command()
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


@main.command()
def docs() -> int:
    """Print where the documentation is, and the title of each file.

    It is the documentation of this version.

    \b
    Example:
      less "$(sse-push docs | head -n 1)/operations.md"
    """
    click.echo(_DOCS)
    for path in sorted(_DOCS.glob("*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        click.echo(f"  {path.name:20} {title}")
    return 0


def _post(url: str, path: str, body: Mapping[str, object], key: str | None) -> str:
    """Post to the service, and return the ID of what Redis has stored."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.post(f"{url.rstrip('/')}{path}", json=body, headers=headers, timeout=10)
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        raise PushError(f"expected the service at {url}, got: {exc}") from exc
    if answer.status_code != 200:
        raise PushError(f"{url} answered {answer.status_code}: {answer.text[:500]}")
    entry_id: str = answer.json()["id"]
    return entry_id


def _parse_duration(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise click.BadParameter(
            f"expected a time as in 90s, 15m or 1h, got {text!r}", param_hint="--expires-in"
        )
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


async def _until_sigint(work: Coroutine[None, None, None]) -> None:
    """Run until SIGINT. Cancel again and again then: a library may swallow a cancellation."""
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
    async with httpx.AsyncClient(headers=headers) as client:
        async for got in follow(client, url, last_event_id):
            if isinstance(got, StateChange):
                _print_line(f"{got.state}{f' {got.why}' if got.why else ''}")
            elif got.type != "heartbeat" or heartbeats:
                _print_line(f"{got.type:9} {_age(got):>9} {got.id or '-':22} {got.data}")


def _age(event: Event) -> str:
    try:
        age_ms = time.time() * 1000 - EntryId.parse(event.id).ms
    except InvalidEntryId:
        return "-"
    return f"{age_ms:.0f} ms" if event.type == "refresh" else "-"


def _print_line(text: str) -> None:
    click.echo(f"{datetime.now(UTC).astimezone():%H:%M:%S.%f}"[:-3] + f" {text}")


def _with_redis(settings: Settings, url: str) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.load(**{**given, "redis_url": url})


def _print_keys(rules: TokenRules) -> None:
    for algorithm in dict.fromkeys(key.algorithm for key in rules.keys):
        keys = [key for key in rules.keys if key.algorithm == algorithm]
        kids = ", ".join(key.kid for key in keys if key.kid is not None)
        click.echo(f"{'token keys':24} {algorithm}: {len(keys)}{f', kid {kids}' if kids else ''}")


def _require(settings: Settings, *names: str) -> None:
    """Refuse to start without these settings.

    Raises:
        ConfigError: a setting is missing; a line for each, with the values to choose from.
    """
    missing = [
        f"{name} ({PREFIX}{name.upper()}, --{name.replace('_', '-')}): missing; {_CHOICES[name]}"
        for name in names
        if getattr(settings, name) is None
    ]
    if missing:
        raise ConfigError("\n".join(missing))
