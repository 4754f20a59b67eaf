"""The command line ``sse-push``: each command reads its flags, calls one part, and prints.

- of an operator: ``keys``, ``serve``, ``demo``, ``check``, ``doctor``, ``init``, ``docs``
- requests to a service: ``notify``, ``revoke``, ``tail``, ``token``

A command is a function in the module of its name. ``flags`` has the flags that commands share,
``post`` the request of ``notify`` and ``revoke``, ``listen`` what ``tail`` does, and ``verdict``
the form of what ``check`` finds. Errors pass through as exceptions; ``__main__`` turns them into
one line and an exit status.

A command imports what it needs when it runs: the help and the completion of a shell import its
module as well, at each press of TAB.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from sse_push import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    *("keys", "serve", "demo", "check", "doctor", "init", "docs"),
    *("notify", "revoke", "tail", "token"),
)


class _Commands(click.Group):
    """The commands; each is imported when it is asked for, and only its help is read before."""

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for; the error names the one that may be meant."""
        is_wrong = args[0] not in COMMANDS and not args[0].startswith("-")
        if is_wrong and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the help."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names))
        rows = [(name, _without_code(name).get_short_help_str(width)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands, and the flags, that begin with what is typed."""
        found = [
            CompletionItem(name, help=_without_code(name).get_short_help_str())
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def _without_code(name: str) -> click.Command:
    """Return a command with no more than its help, from the source of its module."""
    source = Path(__file__).with_name(f"{name}.py").read_text("utf-8")
    (function,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return click.Command(name, help=ast.get_docstring(function))


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
