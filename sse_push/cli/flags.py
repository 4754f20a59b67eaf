"""The flags that several commands share, and the warnings of what they give away.

Knows which flags are settings, and the variables of a command line. Does not know what a command
does. Imports little, as each module of a command does: the completion of a shell imports them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sse_push.errors import ConfigError
from sse_push.runtime.variables import (
    HOST,
    KEY_VARIABLE,
    PORT,
    TOKEN_VARIABLE,
    URL_VARIABLE,
)

if TYPE_CHECKING:
    from sse_push.runtime.env_file import EnvFile

logger = logging.getLogger(__name__)

OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")
"""The settings that are also flags."""

_PATH = click.Path(path_type=Path)


class _SettingOption(click.Option):
    """The flag of a setting. The text of its help is that of the setting, read when it is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the flag and its help."""
        from sse_push.settings import Settings

        field = Settings.model_fields[str(self.name)]
        default = "" if field.default is None else f"  [default: {field.default}]"
        self.help = f"{(field.description or '').replace('`', '')}{default}"
        return super().get_help_record(ctx)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each setting of ``OPTIONS_OF_SERVE``."""
    for name in reversed(OPTIONS_OF_SERVE):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, metavar="VALUE", cls=_SettingOption)(command)
    return command


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> EnvFile | None:
    """Read the file of ``--env-file``, and warn if it is open to all."""
    del ctx, param
    if path is None:
        return None
    from sse_push.runtime.env_file import read_env_file

    return read_env_file(path)


def _read_for_client(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the defaults of a client's flags from the file: their variables are set beside them."""
    file = _read(ctx, param, path)
    if file is None:
        return
    warn_of_file(file)
    ctx.default_map = {
        str(option.name): file.texts[option.envvar]
        for option in ctx.command.params
        if isinstance(option.envvar, str) and option.envvar in file.texts
    }


env_file_option = click.option(
    "--env-file",
    type=_PATH,
    callback=_read,
    metavar="FILE",
    help="file of variables, such as `sse-push keys` prints; a variable of the environment wins",
)
"""For commands that take settings: the content of the file is their parameter."""

client_env_file_option = click.option(
    "--env-file",
    type=_PATH,
    callback=_read_for_client,
    expose_value=False,
    is_eager=True,
    metavar="FILE",
    help="file of these variables, such as `sse-push keys` prints; the environment wins",
)
"""For commands that are clients of a service."""


def _checked_url(ctx: click.Context, param: click.Parameter, url: str) -> str:
    """Refuse what is no address of a service: some would be tried for ever."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an IPv6 address without its end, or a port that is no number
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable() or " " in url:
        raise click.BadParameter(
            f"expected http://HOST:PORT or https://HOST, got {url!r}", ctx, param
        )
    return url


url_option = click.option(
    "--url",
    envvar=URL_VARIABLE,
    default=f"http://{HOST}:{PORT}",  # where a service with the default settings listens
    show_default=True,
    show_envvar=True,
    callback=_checked_url,
    help="URL of the service",
)
token_option = click.option(
    "--token",
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    help="token, as `sse-push token` prints; better in the variable, since `ps` shows flags",
)
token_file_option = click.option(
    "--token-file",
    type=_PATH,
    envvar=f"{TOKEN_VARIABLE}_FILE",
    show_envvar=True,
    help="file that holds the token",
)


key_option = click.option(
    "--key",
    envvar=KEY_VARIABLE,
    show_envvar=True,
    help="key of notify_keys; better in the variable, since `ps` shows flags",
)
key_file_option = click.option(
    "--key-file",
    type=_PATH,
    envvar=f"{KEY_VARIABLE}_FILE",
    show_envvar=True,
    help="file that holds the key",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON object, for a script"
)


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a request to a service needs: ``url``, ``key`` and ``as_json``."""

    @functools.wraps(command)
    def with_key(*, key: str | None, key_file: Path | None, **options: Any) -> Any:
        return command(key=secret_of(KEY_VARIABLE, key, key_file), **options)

    for add in (json_option, client_env_file_option, key_file_option, key_option, url_option):
        with_key = add(with_key)
    return with_key


def secret_of(name: str, text: str | None, path: Path | None) -> str | None:
    """Return a secret for a header, given itself or as a file; None if neither is.

    Raises:
        ConfigError: both are given, the file can't be read, or no header can hold the secret.
    """
    if path is not None:
        if text is not None:
            raise ConfigError(f"{name}: expected {name} or {name}_FILE, got both")
        from sse_push.runtime.secret_files import read_secret

        text = read_secret(path, f"{name}_FILE")
    if text is not None and not (text.isascii() and text.isprintable()):
        raise ConfigError(f"{name}: expected printable ASCII on one line, got something else")
    return text


def secret_flags(flags: Mapping[str, object]) -> list[str]:
    """Return those of the flags whose values are secrets: ``ps`` shows them to everybody."""
    from sse_push.settings import has_password

    keys, url = flags.get("notify_keys"), flags.get("redis_url")
    is_shown = {
        "--notify-keys": keys is not None and keys != "none",
        "--redis-url": isinstance(url, str) and has_password(url),
    }
    return [flag for flag, is_secret in is_shown.items() if is_secret]


def warn_of_secrets(flags: Mapping[str, object]) -> None:
    """Log which flags hold secrets, as long as the process lives."""
    if found := secret_flags(flags):
        logger.warning("secrets in flags are shown by ps, set variables flags=%s", ",".join(found))


def warn_of_file(file: EnvFile | None) -> None:
    """Log that every user of this machine may read the secrets of a file."""
    if file is not None and file.is_open_to_all:
        logger.warning(
            "every user of this machine may read the env file, chmod 600 path=%s", file.path
        )
