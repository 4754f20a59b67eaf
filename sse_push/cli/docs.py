"""``sse-push docs``: where the documentation is."""

from __future__ import annotations

from pathlib import Path

import click

_DOCS = Path(__file__).parents[1] / "docs"


@click.command()
def docs() -> int:
    """Print where the documentation is, and the title of each file.

    The documentation is that of this version.

    \b
    Example:
      less "$(sse-push docs | head -n 1)/operations.md"
    """
    click.echo(_DOCS)
    for path in sorted(_DOCS.glob("*.md")):
        title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        click.echo(f"  {path.name:20} {title}")
    return 0
