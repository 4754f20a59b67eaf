"""The flags that several commands share.

Knows the settings, and their defaults. Does not know what a command does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import click

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
