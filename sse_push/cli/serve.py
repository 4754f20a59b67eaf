"""``sse-push serve``: build the settings, refuse to start without those that matter, and serve."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from sse_push.cli.flags import env_file_option, settings_options, warn_of_file, warn_of_secrets
from sse_push.errors import ConfigError

if TYPE_CHECKING:
    from sse_push.runtime.env_file import EnvFile
    from sse_push.settings import Settings


@click.command()
@settings_options
@env_file_option
@click.option("--embedded", is_flag=True, help="start a private valkey-server; no redis_url")
def serve(*, embedded: bool, env_file: EnvFile | None, **flags: str | None) -> int:
    """Serve until SIGTERM or Ctrl-C. Then end every connection in order, and exit with 0.

    Does not start without --subscribe-auth (who may listen) and --notify-keys (who may notify).
    Secrets are better in variables or files, since `ps` shows flags.

    \b
    Example:
      sse-push keys > .env
      sse-push serve --env-file .env --redis-url redis://127.0.0.1:6379/0
    """
    from sse_push.runtime.embedded import embedded_server
    from sse_push.runtime.logs import configure_logging
    from sse_push.runtime.service_manager import Given
    from sse_push.server import serve as serve_until_signal
    from sse_push.settings import Settings

    given = Given.take()
    settings = Settings.load(env_file, **flags)
    configure_logging(settings.log_level, settings.log_format)
    warn_of_secrets(flags)
    warn_of_file(env_file)
    _require(settings, has_redis=embedded)
    if embedded and settings.redis_url is not None:
        raise ConfigError("expected either --embedded or redis_url, got both")
    if embedded and settings.wait_replicas:
        raise ConfigError("wait_replicas needs a Redis with replicas: --embedded has none")
    if settings.has_tokens:
        from sse_push.http.service import token_rules

        token_rules(settings)  # a broken key file is reported here, once, and not by each worker
    with embedded_server() if embedded else contextlib.nullcontext() as url:
        settings = settings if url is None else _with_redis(settings, url)
        return serve_until_signal(settings, given=given)


def _with_redis(settings: Settings, url: str) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return settings.load(**{**given, "redis_url": url})


def _require(settings: Settings, *, has_redis: bool) -> None:
    """Refuse to start without the settings that matter.

    Raises:
        ConfigError: a setting is missing; a line for each, with the values to choose from.
    """
    from sse_push.cli.examine import missing

    lines = [text for name, text in missing(settings) if not (has_redis and name == "redis_url")]
    if lines:
        raise ConfigError("\n".join(lines))
