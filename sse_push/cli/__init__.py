"""The command line ``sse-push``: each command reads its flags, calls one part, and prints.

- of an operator: ``serve``, ``demo``, ``check``, ``doctor``, ``docs``
- requests to a service: ``notify``, ``revoke``, ``tail``, ``token``

A command is a function in the module of its name. ``flags`` has the flags that commands share, and
``post`` the request of ``notify`` and ``revoke``. Errors pass through as exceptions; ``__main__``
turns them into one line and an exit status.
"""

from __future__ import annotations

from importlib import import_module

import click

from sse_push import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = ("serve", "demo", "check", "doctor", "docs", "notify", "revoke", "tail", "token")


class _Commands(click.Group):
    """The commands; each is imported when it is asked for, since some take a third of a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx  # all are there in any context
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or None."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command), "the function has the name of its module"
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="sse-push")
def main() -> None:
    """Push service: tells every open browser of a merchant that its data has changed.

    Start with `sse-push demo`. Every setting can also be given as a variable SSE_PUSH_<NAME>.
    `sse-push docs` prints where the documentation is.
    """
