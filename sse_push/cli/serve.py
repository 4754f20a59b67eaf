"""``sse-push serve``: build the settings, refuse to start without those that matter, and serve."""

from __future__ import annotations

import contextlib

import click

from sse_push.cli.flags import settings_options, warn_of_secrets
from sse_push.errors import ConfigError
from sse_push.runtime.embedded import embedded_server
from sse_push.runtime.logs import configure_logging
from sse_push.runtime.service_manager import Given
from sse_push.server import serve as serve_until_signal
from sse_push.settings import PREFIX, Settings

_CHOICES = {
    "subscribe_auth": "`token`: anyone with a token, `header`: clients whose merchant a proxy "
    "names, `none`: anyone",
    "notify_keys": "the keys that may notify, comma-separated, or `none`: anyone",
    "redis_url": "the URL of a Redis; --embedded starts a private server instead",
}


@click.command()
@settings_options
@click.option("--embedded", is_flag=True, help="start a private valkey-server; no redis_url")
def serve(*, embedded: bool, **flags: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C. Then end every connection in order, and exit with 0.

    Does not start without --subscribe-auth (who may listen) and --notify-keys (who may notify).
    Secrets are better in variables, since `ps` shows flags.

    \b
    Example:
      export SSE_PUSH_NOTIFY_KEYS="$(openssl rand -hex 24)"
      sse-push serve --redis-url redis://127.0.0.1:6379/0 --subscribe-auth none
    """
    given = Given.take()
    settings = Settings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    warn_of_secrets(flags)
    _require(settings, "subscribe_auth", "notify_keys", *([] if embedded else ["redis_url"]))
    if embedded and settings.redis_url is not None:
        raise ConfigError("expected either --embedded or redis_url, got both")
    if settings.has_tokens:
        from sse_push.http.service import token_rules  # noqa: PLC0415 (as in ``server``)

        token_rules(settings)  # a broken key file is reported here, once, and not by each worker
    with embedded_server() if embedded else contextlib.nullcontext() as url:
        settings = settings if url is None else _with_redis(settings, url)
        return serve_until_signal(settings, given=given)


def _with_redis(settings: Settings, url: str) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.load(**{**given, "redis_url": url})


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
