"""The flags that several commands share, and the warnings of what they give away.

Knows the settings, and their defaults. Does not know what a command does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sse_push.runtime.socket_file import is_open_to_all
from sse_push.settings import KEY_VARIABLE, Settings, has_password

logger = logging.getLogger(__name__)

OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")
"""The settings that are also flags."""

HOST, PORT = (Settings.model_fields[name].default for name in ("host", "port"))

url_option = click.option(
    "--url",
    default=f"http://{HOST}:{PORT}",  # where a service with the default settings listens
    show_default=True,
    help="URL of the service",
)
key_option = click.option(
    "--key",
    envvar=KEY_VARIABLE,
    help=f"key of notify_keys; better in {KEY_VARIABLE}, since `ps` shows flags",
)


def secret_flags(flags: Mapping[str, object]) -> list[str]:
    """Return those of the flags whose values are secrets: ``ps`` shows them to everybody."""
    keys, url = flags.get("notify_keys"), flags.get("redis_url")
    is_shown = {
        "--notify-keys": keys is not None and keys != "none",
        "--redis-url": isinstance(url, str) and has_password(url),
    }
    return [flag for flag, is_secret in is_shown.items() if is_secret]


def warnings_of(settings: Settings, flags: Mapping[str, object]) -> Iterator[str]:
    """Yield what ``serve`` warns of, and some of which it refuses."""
    for flag in secret_flags(flags):
        yield f"{flag} has a secret, which ps shows: set a variable instead"
    if settings.trusts_all_addresses:
        yield "trusted_proxies has nearly all addresses: any client may claim any address"
    if settings.uds is not None and is_open_to_all(Path(settings.uds), int(settings.uds_mode, 8)):
        yield (
            f"uds {settings.uds}: every user of this machine may connect, and claim any address "
            "(with subscribe_auth=header any merchant: serve refuses to start)"
        )


def warn_of_secrets(flags: Mapping[str, object]) -> None:
    """Log which flags hold secrets, as long as the process lives."""
    if found := secret_flags(flags):
        logger.warning("secrets in flags are shown by ps, set variables flags=%s", ",".join(found))


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each setting of ``OPTIONS_OF_SERVE``."""
    for name in reversed(OPTIONS_OF_SERVE):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f"  [default: {field.default}]"
        text = f"{(field.description or '').replace('`', '')}{default}"
        command = click.option(flag, name, metavar="VALUE", help=text)(command)
    return command
