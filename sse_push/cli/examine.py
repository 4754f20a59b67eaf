"""Examine settings: what ``serve`` refuses, and what it warns of.

Knows what is wrong with settings that are read one by one without a fault. Does not know Redis
(``stream.examine``), nor how findings are shown.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from sse_push.cli.flags import secret_flags
from sse_push.errors import ConfigError
from sse_push.http.service import token_rules
from sse_push.runtime.address import cannot_listen, try_address
from sse_push.runtime.env_file import EnvFile
from sse_push.runtime.finding import Finding
from sse_push.runtime.run_folder import run_folder
from sse_push.runtime.socket_file import is_open_to_all
from sse_push.runtime.variables import PREFIX
from sse_push.server import file_limit, files_needed
from sse_push.settings import Settings

_CHOICES = {
    "subscribe_auth": "`token`: anyone with a token, `header`: clients whose merchant a proxy "
    "names, `none`: anyone",
    "notify_keys": "the keys that may notify, comma-separated, or `none`: anyone",
    "redis_url": "the URL of a Redis; --embedded starts a private server instead",
}


def missing(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each setting that is required and not set, with what to choose from."""
    for name, choice in _CHOICES.items():
        if getattr(settings, name) is None:
            flag = f"--{name.replace('_', '-')}"
            yield name, f"{name} ({PREFIX}{name.upper()}, {flag}): missing; {choice}"


def examine_settings(
    settings: Settings, flags: Mapping[str, object], file: EnvFile | None
) -> Iterator[Finding]:
    """Yield what keeps ``serve`` from a start with these settings, and what it warns of."""
    for name, text in missing(settings):
        yield Finding("failure", name, text)
    yield from _keys(settings)
    yield from _openness(settings)
    yield from _address(settings)
    yield from _resources(settings)
    for flag in secret_flags(flags):
        text = f"{flag} has a secret, which ps shows: set a variable instead"
        yield Finding("warning", "secret_flag", text)
    if file is not None and file.is_open_to_all:
        text = f"{file.path}: every user of this machine may read it: chmod 600 {file.path}"
        yield Finding("warning", "env_file", text)


def _keys(settings: Settings) -> Iterator[Finding]:
    try:
        token_rules(settings)
    except ConfigError as exc:
        yield Finding("failure", "token_keys", str(exc))


def _openness(settings: Settings) -> Iterator[Finding]:
    if settings.is_open_to_network:
        yield Finding(
            "failure",
            "open_to_network",
            f"host ({settings.host}) is not this machine alone, so anyone who reaches it may "
            "listen to any merchant and notify: set subscribe_auth or notify_keys (`sse-push keys` "
            "makes some), or listen on 127.0.0.1; serve starts all the same, with a warning",
        )
    if settings.trusts_all_addresses:
        yield Finding(
            "warning",
            "trusted_proxies",
            "trusted_proxies has nearly all addresses: any client may claim any address",
        )
    if settings.swoole_compat == "on":
        networks = ", ".join(map(str, settings.trusted_backends))
        text = f"swoole_compat is on: a program at {networks} may notify without a key"
        yield Finding("warning", "swoole_compat", text)
    if settings.uds is not None and is_open_to_all(Path(settings.uds), int(settings.uds_mode, 8)):
        is_refused = settings.subscribe_auth == "header"
        yield Finding(
            "failure" if is_refused else "warning",
            "uds_mode",
            f"uds {settings.uds}: every user of this machine may connect, and claim any address"
            f"{' and any merchant, so serve refuses to start' if is_refused else ''}: use a folder "
            "that only the proxy may enter, or a uds_mode such as 0660",
        )


def _address(settings: Settings) -> Iterator[Finding]:
    where = (settings.host, settings.port, settings.uds)
    exc = try_address(*where)
    if exc is None:
        return
    text = str(cannot_listen(*where, exc))
    if getattr(exc, "errno", None) == errno.EADDRINUSE:
        yield Finding("warning", "address", f"{text}; as it should be if the service runs")
    else:
        yield Finding("failure", "address", text)


def _resources(settings: Settings) -> Iterator[Finding]:
    try:
        with run_folder("sse_push", settings.run_folder):
            pass
    except ConfigError as exc:
        yield Finding("failure", "run_folder", str(exc))
    needed, allowed = files_needed(settings), file_limit()
    if needed > allowed:
        yield Finding(
            "warning",
            "open_files",
            f"max_connections ({settings.max_connections}) needs {needed} open files, and "
            f"{allowed} are allowed: fewer connections are served; raise `ulimit -n` (systemd: "
            "LimitNOFILE)",
        )
