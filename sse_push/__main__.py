"""The command ``sse-push``: configure logging, run, turn an error into one line and a status."""

from __future__ import annotations

import gc
import sys

import click

from sse_push.cli import main
from sse_push.errors import ConfigError, PushError
from sse_push.runtime.logs import configure_logging, printable


def run() -> None:
    """Run the command line; exit with 0 (done), 1 (failed), 2 (wrong usage or settings) or 130."""
    configure_logging("info")
    status: object = 1
    try:
        status = main.main(prog_name="sse-push", standalone_mode=False)
    except ConfigError as exc:
        _fail(str(exc), 2)
    except PushError as exc:
        _fail(str(exc), 1)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    finally:
        # Python looks for garbage as it ends, among all that was imported: for a tenth of a second.
        gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _fail(text: str, status: int) -> None:
    for line in text.splitlines():
        click.echo(f"sse-push: {printable(line)}", err=True)  # some have what a server answered
    sys.exit(status)


if __name__ == "__main__":
    run()
