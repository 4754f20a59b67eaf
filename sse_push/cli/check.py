"""``sse-push check``: print the settings and keys, and examine Redis."""

from __future__ import annotations

import asyncio

import click

from sse_push.access.tokens import TokenRules
from sse_push.cli.flags import settings_options, warnings_of
from sse_push.errors import ConfigError
from sse_push.http.service import token_rules
from sse_push.settings import Settings
from sse_push.stream import examine


@click.command()
@settings_options
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
    for text in warnings_of(settings, flags):
        click.echo(f"{'warning':8} {text}")
    return 1 if any(finding.level == "failure" for finding in findings) else 0


def _print_keys(rules: TokenRules) -> None:
    for algorithm in dict.fromkeys(key.algorithm for key in rules.keys):
        keys = [key for key in rules.keys if key.algorithm == algorithm]
        kids = [key.kid for key in keys if key.kid is not None]
        # What stands before "=" in a secret of token_keys may be a part of the secret.
        named = f"{len(kids)} with a kid" if algorithm == "HS256" else f"kid {', '.join(kids)}"
        click.echo(f"{'token keys':24} {algorithm}: {len(keys)}{f', {named}' if kids else ''}")
