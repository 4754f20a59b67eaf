"""The command line: read flags, call, print.

Builds the settings, and passes them on. Does not know HTTP or Redis itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
import httpx

from sse_push import __version__
from sse_push.access.tokens import sign
from sse_push.demo import run_demo
from sse_push.errors import ConfigError, InvalidEntryId, PushError
from sse_push.http.app import token_rules
from sse_push.notification import EntryId, parse_merchant_id
from sse_push.runtime.embedded import embedded_server
from sse_push.runtime.logs import configure_logging
from sse_push.server import serve as serve_until_signal
from sse_push.settings import KEY_VARIABLE, TOKEN_VARIABLE, Settings
from sse_push.sse_client import Event, StateChange, follow
from sse_push.stream import examine

_URL = "http://127.0.0.1:8000"
_CANCEL_S = 0.5
_OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sse-push")
def main() -> None:
    """Tell every open browser of a merchant that its data has changed.

    Start with `sse-push demo`. Every setting can also be a variable SSE_PUSH_<NAME>.
    """


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(_OPTIONS_OF_SERVE):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f"  [default: {field.default}]"
        text = f"{(field.description or '').replace('`', '')}{default}"
        command = click.option(flag, name, metavar="VALUE", help=text)(command)
    return command


@main.command()
@_settings_options
@click.option("--embedded", is_flag=True, help="run a valkey-server of our own, without any setup")
def serve(*, embedded: bool, **flags: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C; then end every stream properly, and exit with 0.

    Refuses to start while it is not said who may listen and who may notify.

    \b
    Example:
      sse-push serve --redis-url redis://127.0.0.1:6379/0 \\
          --subscribe-auth none --notify-keys "$(openssl rand -hex 24)"
    """
    settings = Settings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    _refuse_open_doors(settings)
    token_rules(settings)  # a broken key file is reported here, once, and not by each worker
    if embedded and settings.redis_url is not None:
        raise ConfigError("--embedded stands instead of a redis_url: give one or the other")
    if not embedded and settings.redis_url is None:
        raise ConfigError(
            "redis_url (SSE_PUSH_REDIS_URL, --redis-url): expected the URL of a Redis, got none; "
            "or say --embedded for a server of our own"
        )
    with embedded_server() if embedded else contextlib.nullcontext() as url:
        return serve_until_signal(settings if url is None else _with_redis(settings, url))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=8000, show_default=True, help="port to listen on; 0: any free one")
@click.option(
    "--crowd", default=0, metavar="N", show_default=True, help="simulated buyers, with streams"
)
@click.option("--redis-url", help="a Redis to use instead of an embedded server")
@click.option("--tokens", is_flag=True, help="listen with tokens, which the cinema hands out")
def demo(*, host: str, port: int, crowd: int, redis_url: str | None, tokens: bool) -> int:
    """Run a small cinema: open it in two windows, sell a seat in one, see it sold in the other.

    Everything is on one port, and open to whoever can reach it.

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
    """Print the settings that are in effect, and prove that Redis announces a change.

    Exits with 0 if all is well or only warned of, 1 if the service would not work.

    \b
    Example:
      sse-push check --redis-url redis://127.0.0.1:6379/0
    """
    settings = Settings.load(**flags)
    for name, text in settings.safe().items():
        click.echo(f"{name:24} {text}")
    _check_keys(settings)
    if settings.redis_url is None:
        raise ConfigError("redis_url: expected the URL of a Redis to look at, got none")
    url = settings.redis_url.get_secret_value()
    findings = asyncio.run(examine(url, timeout_s=settings.notify_timeout_s))
    click.echo()
    for finding in findings:
        click.echo(f"{finding.level:8} {finding.text}")
    return 1 if any(finding.level == "failure" for finding in findings) else 0


@main.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--topic", help="which part of the merchant's data has changed")
@click.option("--data", metavar="JSON", help="what has changed, as JSON")
@click.option("--by", help="the tab or user that made the change")
@click.option("--url", default=_URL, show_default=True, help="where the service is")
@click.option("--key", envvar=KEY_VARIABLE, help="a key of notify_keys")
def notify(
    *,
    merchant_id: str,
    topic: str | None,
    data: str | None,
    by: str | None,
    url: str,
    key: str | None,
) -> int:
    """Tell every browser of MERCHANT to refresh; print the ID of the entry.

    \b
    Example:
      sse-push notify 42 --topic seats --data '{"seat": "C7"}'
    """
    body: dict[str, object] = {"merchant_id": merchant_id, "topic": topic, "by": by}
    if data is not None:
        try:
            body["data"] = json.loads(data)
        except ValueError as exc:
            raise click.BadParameter(f"expected JSON, got {data!r}", param_hint="--data") from exc
    click.echo(_post(url, "/notify", body, key))
    return 0


@main.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--jti", help="only the token with this ID")
@click.option("--sub", help="only the tokens of this subject")
@click.option("--url", default=_URL, show_default=True, help="where the service is")
@click.option("--key", envvar=KEY_VARIABLE, help="a key of notify_keys")
def revoke(*, merchant_id: str, jti: str | None, sub: str | None, url: str, key: str | None) -> int:
    """End the streams of MERCHANT, and refuse the tokens that they were opened with.

    Prints the ID of the revocation. A token that is issued in a later second is let in.

    \b
    Example:
      sse-push revoke 42 --sub user-7
    """
    click.echo(_post(url, "/revoke", {"merchant_id": merchant_id, "jti": jti, "sub": sub}, key))
    return 0


@main.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--url", default=_URL, show_default=True, help="where the service is")
@click.option("--last-event-id", default="", metavar="ID", help="resume as if this had been seen")
@click.option("--heartbeats", is_flag=True, help="print heartbeats as well")
@click.option("--token", envvar=TOKEN_VARIABLE, help="a token, as `sse-push token` prints one")
def tail(
    *, merchant_id: str, url: str, last_event_id: str, heartbeats: bool, token: str | None
) -> int:
    """Listen as a browser does, and print each event with its age; end with Ctrl-C.

    The age is the time since Redis gave the entry its ID, by this machine's clock.

    \b
    Example:
      sse-push tail 42
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(url, merchant_id, last_event_id, headers, heartbeats=heartbeats))
    return 0


@main.command()
@click.argument("merchants", metavar="MERCHANT...", nargs=-1, required=True)
@click.option("--expires-in", default="15m", show_default=True, help="as in 90s, 15m or 1h")
@click.option("--sub", help="whom it is for; what can be revoked together")
@click.option("--jti", help="its own ID; by default a random one")
def token(*, merchants: tuple[str, ...], expires_in: str, sub: str | None, jti: str | None) -> int:
    """Print a token that lets its owner listen to MERCHANT, for trying out.

    It is signed by HS256 with the first of SSE_PUSH_TOKEN_KEYS, and has the aud and the iss that
    the service expects. Your own backend makes its own, with any JWT library.

    \b
    Example:
      SSE_PUSH_TOKEN_KEYS=$SECRET sse-push token 42 --expires-in 15m
    """
    settings = Settings.load()
    if not settings.token_keys:
        raise ConfigError(
            "token_keys (SSE_PUSH_TOKEN_KEYS): expected an HMAC secret to sign with, got none"
        )
    lifetime_s = _seconds(expires_in)
    if not 1 <= lifetime_s <= settings.token_max_lifetime_s:
        raise click.BadParameter(
            f"expected 1 s to {settings.token_max_lifetime_s:g} s (token_max_lifetime_s), "
            f"got {expires_in!r}",
            param_hint="--expires-in",
        )
    click.echo(
        sign(
            settings.token_keys[0],
            [parse_merchant_id(each) for each in merchants],
            lifetime_s=lifetime_s,
            subject=sub,
            token_id=jti,
            audience=settings.token_audience,
            issuer=settings.token_issuer,
        )
    )
    return 0


def _post(url: str, path: str, body: dict[str, object], key: str | None) -> str:
    """Return the ID of what Redis has stored for a backend."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.post(f"{url.rstrip('/')}{path}", json=body, headers=headers, timeout=10)
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        raise PushError(f"expected the service at {url}, got: {exc}") from exc
    if answer.status_code != 200:
        raise PushError(f"{url} answered {answer.status_code}: {answer.text[:500]}")
    entry_id: str = answer.json()["id"]
    return entry_id


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise click.BadParameter(
            f"expected a time as in 90s, 15m or 1h, got {text!r}", param_hint="--expires-in"
        )
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


async def _tail(
    url: str, merchant_id: str, last_event_id: str, headers: dict[str, str], *, heartbeats: bool
) -> None:
    """Listen until SIGINT; told by a handler, since a library may swallow a cancellation."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    listening = asyncio.create_task(
        _listen(url, merchant_id, last_event_id, headers, heartbeats=heartbeats)
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([listening, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if listening.done():
        listening.result()
    while not listening.done():
        listening.cancel()
        await asyncio.wait([listening], timeout=_CANCEL_S)


async def _listen(
    url: str, merchant_id: str, last_event_id: str, headers: dict[str, str], *, heartbeats: bool
) -> None:
    target = httpx.URL(f"{url.rstrip('/')}/events", params={"merchant_id": merchant_id})
    async with httpx.AsyncClient(headers=headers) as client:
        async for got in follow(client, str(target), last_event_id):
            if isinstance(got, StateChange):
                _say(f"{got.state}{f' {got.why}' if got.why else ''}")
            elif got.type != "heartbeat" or heartbeats:
                _say(f"{got.type:9} {_age(got):>9} {got.id or '-':22} {got.data}")


def _age(event: Event) -> str:
    try:
        age_ms = time.time() * 1000 - EntryId.parse(event.id).ms
    except InvalidEntryId:
        return "-"
    return f"{age_ms:.0f} ms" if event.type == "refresh" else "-"


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC).astimezone():%H:%M:%S.%f}"[:-3] + f" {text}")


def _with_redis(settings: Settings, url: str) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.load(**{**given, "redis_url": url})


def _check_keys(settings: Settings) -> None:
    rules = token_rules(settings)
    keys = () if rules is None else rules.keys
    for algorithm in dict.fromkeys(key.algorithm for key in keys):
        several = [key for key in keys if key.algorithm == algorithm]
        kids = ", ".join(key.kid for key in several if key.kid is not None)
        click.echo(
            f"{'token keys':24} {algorithm}: {len(several)}{f', kid {kids}' if kids else ''}"
        )


def _refuse_open_doors(settings: Settings) -> None:
    missing = []
    if settings.subscribe_auth is None:
        missing.append(
            "subscribe_auth (SSE_PUSH_SUBSCRIBE_AUTH, --subscribe-auth): expected who may listen, "
            "got nothing; `token` lets whoever has one, `header` whom a proxy names, `none` anyone"
        )
    if settings.notify_keys is None:
        missing.append(
            "notify_keys (SSE_PUSH_NOTIFY_KEYS, --notify-keys): expected the keys that may notify, "
            "comma-separated, got nothing; `none` lets anyone"
        )
    if missing:
        raise ConfigError("\n".join(missing))
