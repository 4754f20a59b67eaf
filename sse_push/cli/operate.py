"""The commands of an operator: run the service, try it out, examine Redis, find the docs.

Knows flags, and how to build the settings. Does not know Redis, nor how requests are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sse_push.access.tokens import TokenRules
from sse_push.demo import run_demo
from sse_push.errors import ConfigError
from sse_push.http.service import token_rules
from sse_push.runtime.embedded import embedded_server
from sse_push.runtime.logs import configure_logging
from sse_push.server import serve as serve_until_signal
from sse_push.settings import PREFIX, Settings
from sse_push.stream import examine

OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")
"""The settings that are also flags."""

_HOST, _PORT = (Settings.model_fields[name].default for name in ("host", "port"))
_DOCS = Path(__file__).parents[1] / "docs"
_CHOICES = {
    "subscribe_auth": "`token`: anyone with a token, `header`: clients whose merchant a proxy "
    "names, `none`: anyone",
    "notify_keys": "the keys that may notify, comma-separated, or `none`: anyone",
    "redis_url": "the URL of a Redis; --embedded starts a private server instead",
}


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(OPTIONS_OF_SERVE):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f"  [default: {field.default}]"
        text = f"{(field.description or '').replace('`', '')}{default}"
        command = click.option(flag, name, metavar="VALUE", help=text)(command)
    return command


@click.command()
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


@click.command()
@click.option("--host", default=_HOST, show_default=True, help="address to listen on")
@click.option(
    "--port", default=_PORT, show_default=True, help="port to listen on; 0: any free port"
)
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


@click.command()
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


@click.command()
def docs() -> int:
    """Print where the documentation is, and the title of each file.

    The documentation is that of this version.

    \b
    Example:
      less "$(sse-push docs | head -n 1)/operations.md"
    """
    click.echo(_DOCS)
    for path in sorted(_DOCS.glob("*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        click.echo(f"  {path.name:20} {title}")
    return 0


def _with_redis(settings: Settings, url: str) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.load(**{**given, "redis_url": url})


def _print_keys(rules: TokenRules) -> None:
    for algorithm in dict.fromkeys(key.algorithm for key in rules.keys):
        keys = [key for key in rules.keys if key.algorithm == algorithm]
        kids = [key.kid for key in keys if key.kid is not None]
        # What stands before "=" in a secret of token_keys may be a part of the secret.
        named = f"{len(kids)} with a kid" if algorithm == "HS256" else f"kid {', '.join(kids)}"
        click.echo(f"{'token keys':24} {algorithm}: {len(keys)}{f', {named}' if kids else ''}")


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
