"""``sse-push check``: examine the settings, the keys and Redis, and say whether ``serve`` works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import click

from sse_push.access.tokens import TokenRules
from sse_push.cli.flags import settings_options, warnings_of
from sse_push.cli.verdict import Verdict, conclude
from sse_push.errors import ConfigError, StreamUnavailable
from sse_push.http.service import token_rules
from sse_push.runtime.finding import Finding
from sse_push.settings import Settings
from sse_push.stream import examine

_VERDICT = Verdict("serve would start and deliver", "serve would not start, or not deliver")


@click.command()
@settings_options
@click.option("--settings", "shows_settings", is_flag=True, help="also print every setting")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, for a script")
def check(*, shows_settings: bool, as_json: bool, **flags: str | None) -> int:
    """Examine the settings and Redis: would the service start, and deliver?

    Exits with 0 if it would (maybe with warnings), or 1 if it would not.

    \b
    Example:
      sse-push check --redis-url redis://127.0.0.1:6379/0
    """
    settings = Settings.load(**flags)
    rules = token_rules(settings)
    if settings.redis_url is None:
        raise ConfigError("redis_url: expected the URL of the Redis to check, got none")
    if shows_settings:
        for name, text in _shown(settings, rules):
            click.echo(f"{name:28} {text}")
        click.echo()
    url = settings.redis_url.get_secret_value()
    try:
        findings = asyncio.run(examine(url, timeout_s=settings.notify_timeout_s))
    except StreamUnavailable as exc:
        findings = [Finding("failure", "unavailable", str(exc))]
    findings += [Finding("warning", "settings", text) for text in warnings_of(settings, flags)]
    return conclude(_VERDICT, findings, as_json=as_json)


def _shown(settings: Settings, rules: TokenRules | None) -> Iterator[tuple[str, str]]:
    yield from settings.safe().items()
    keys = () if rules is None else rules.keys
    for algorithm in dict.fromkeys(key.algorithm for key in keys):
        of_algorithm = [key for key in keys if key.algorithm == algorithm]
        kids = [key.kid for key in of_algorithm if key.kid is not None]
        # What stands before "=" in a secret of token_keys may be a part of the secret.
        named = f"{len(kids)} with a kid" if algorithm == "HS256" else f"kid {', '.join(kids)}"
        yield "token keys", f"{algorithm}: {len(of_algorithm)}{f', {named}' if kids else ''}"
