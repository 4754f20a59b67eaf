"""The command line ``sse-push``: each command reads its flags, calls one part, and prints.

- ``operate``: ``serve``, ``demo``, ``check``, ``docs``
- ``request``: ``notify``, ``revoke``, ``tail``, ``token``

Errors pass through as exceptions; ``__main__`` turns them into one line and an exit status.
"""

from __future__ import annotations

import click

from sse_push import __version__
from sse_push.cli.operate import check, demo, docs, serve
from sse_push.cli.request import notify, revoke, tail, token

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sse-push")
def main() -> None:
    """Push service: tells every open browser of a merchant that its data has changed.

    Start with `sse-push demo`. Every setting can also be given as a variable SSE_PUSH_<NAME>.
    `sse-push docs` prints where the documentation is.
    """


for command in (serve, demo, check, docs, notify, revoke, tail, token):
    main.add_command(command)
