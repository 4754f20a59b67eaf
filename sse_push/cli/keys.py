"""``sse-push keys``: new keys, as a file of variables for a service and its backends."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys

import click

from sse_push.cli.flags import json_option
from sse_push.runtime.variables import KEY_VARIABLE, PREFIX

_NOTIFY_KEY_BYTES = 24
"""48 hexadecimal digits; ``access.keys`` expects 32 characters."""
_TOKEN_KEY_BYTES = 32
"""As long as the hash of HS256."""

_FILE = """\
# Secrets, made by `sse-push keys`: whoever reads this may notify, and listen to any merchant.
# Where Redis is: fill this in, or give --redis-url (or --embedded) to serve.
# SSE_PUSH_REDIS_URL=redis://127.0.0.1:6379/0
# Who may notify and revoke: a backend that sends one of these keys.
{notify_keys}
# Who may listen: a page with a token from your backend.
{subscribe_auth}
# The secret with which your backend signs tokens, and the service checks them.
{token_keys}
# For a backend, and for `sse-push notify` and `revoke`: the key that they send (not a setting).
{notify_key}
"""


@click.command()
@json_option
def keys(*, as_json: bool) -> int:
    """Print new keys, as a file of variables for `--env-file`.

    With these, a service lets only those notify who have the key, and only those listen who have a
    token. A new file, as in the example, is closed to other users.

    \b
    Example:
      sse-push keys > .env
      sse-push serve --env-file .env --redis-url redis://127.0.0.1:6379/0
    """
    from secrets import token_hex

    key = token_hex(_NOTIFY_KEY_BYTES)
    variables = {
        f"{PREFIX}NOTIFY_KEYS": key,
        f"{PREFIX}SUBSCRIBE_AUTH": "token",
        f"{PREFIX}TOKEN_KEYS": token_hex(_TOKEN_KEY_BYTES),
        KEY_VARIABLE: key,
    }
    _close_to_others()
    if as_json:
        click.echo(json.dumps(variables, indent=2))
        return 0
    lines = {
        name.removeprefix(PREFIX).lower(): f"{name}={text}" for name, text in variables.items()
    }
    click.echo(_FILE.format_map(lines), nl=False)
    return 0


def _close_to_others() -> None:
    """Let nobody else read the file to which a shell leads the output, if it is new."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is none, or it is that of a test
        return
    file = os.fstat(output)
    if stat.S_ISREG(file.st_mode) and file.st_size == 0 and file.st_uid == os.geteuid():
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(output, stat.S_IRUSR | stat.S_IWUSR)
