"""``sse-push check``: examine the settings, the keys and Redis, and say whether ``serve`` works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sse_push.cli.flags import env_file_option, json_option, settings_options
from sse_push.errors import ConfigError
from sse_push.runtime.finding import Finding

if TYPE_CHECKING:
    from sse_push.runtime.env_file import EnvFile
    from sse_push.settings import Settings


@click.command()
@settings_options
@env_file_option
@click.option("--settings", "shows_settings", is_flag=True, help="also print every setting")
@json_option
def check(
    *, env_file: EnvFile | None, shows_settings: bool, as_json: bool, **flags: str | None
) -> int:
    """Examine the settings and Redis: would the service start, and deliver?

    Exits with 0 if it would (maybe with warnings), or 1 if it would not.

    \b
    Example:
      sse-push check --env-file .env --redis-url redis://127.0.0.1:6379/0
    """
    from sse_push.cli.verdict import Verdict, conclude
    from sse_push.settings import Settings

    shown: dict[str, str] = {}
    try:
        settings = Settings.load(env_file, **flags)
    except ConfigError as exc:
        findings = [Finding("failure", "settings", line) for line in str(exc).splitlines()]
    else:
        findings = _examine(settings, flags, env_file)
        shown = {**settings.safe(), **dict(_token_keys(settings))} if shows_settings else {}
    verdict = Verdict("serve would start and deliver", "serve would not start, or not deliver")
    return conclude(verdict, findings, shown, as_json=as_json)


def _examine(
    settings: Settings, flags: dict[str, str | None], file: EnvFile | None
) -> list[Finding]:
    import asyncio

    from sse_push.cli.examine import examine_settings
    from sse_push.stream import Keys, Login, examine

    findings = list(examine_settings(settings, flags, file))
    if settings.redis_url is not None:
        url, keys = settings.redis_url.get_secret_value(), Keys(settings.key_prefix)
        login = Login(*settings.sentinel_login)
        limit_s = settings.notify_timeout_s
        findings += asyncio.run(
            examine(
                url,
                keys,
                timeout_s=limit_s,
                login=login,
                bell=settings.bell,
                wait_replicas=settings.wait_replicas,
            )
        )
    return findings


def _token_keys(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield a line for each algorithm of the keys that check tokens, if these can be used."""
    from sse_push.http.service import token_rules

    try:
        rules = token_rules(settings)
    except ConfigError:
        return
    keys = () if rules is None else rules.keys
    for algorithm in dict.fromkeys(key.algorithm for key in keys):
        of_algorithm = [key for key in keys if key.algorithm == algorithm]
        kids = [key.kid for key in of_algorithm if key.kid is not None]
        # What stands before "=" in a secret of token_keys may be a part of the secret.
        named = f"{len(kids)} with a kid" if algorithm == "HS256" else f"kid {', '.join(kids)}"
        yield f"keys of {algorithm}", f"{len(of_algorithm)}{f', {named}' if kids else ''}"
