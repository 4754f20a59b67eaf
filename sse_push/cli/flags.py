"""The flags that several commands share.

Knows the settings, and their defaults. Does not know what a command does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sse_push.settings import KEY_VARIABLE, Settings

OPTIONS_OF_SERVE = ("host", "port", "uds", "redis_url", "workers", "subscribe_auth", "notify_keys")
"""The settings that are also flags."""

HOST, PORT = (Settings.model_fields[name].default for name in ("host", "port"))

url_option = click.option(
    "--url",
    default=f"http://{HOST}:{PORT}",  # where a service with the default settings listens
    show_default=True,
    help="URL of the service",
)
key_option = click.option("--key", envvar=KEY_VARIABLE, help="key of notify_keys")


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each setting of ``OPTIONS_OF_SERVE``."""
    for name in reversed(OPTIONS_OF_SERVE):
        field = Settings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default is None else f"  [default: {field.default}]"
        text = f"{(field.description or '').replace('`', '')}{default}"
        command = click.option(flag, name, metavar="VALUE", help=text)(command)
    return command
