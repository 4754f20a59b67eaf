"""The documentation of the checkout: its files, their sections, tables, examples and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NAMES = [
    "README.md",
    "CHANGELOG.md",
    "client/README.md",
    "nginx/README.md",
    "tests/README.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("sse_push/docs/*.md"))),
]
"""Every document, by its path from the top of the checkout."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Example(NamedTuple):
    """A block of code in a document: the ``number``-th of its language, from 0."""

    document: str
    language: str
    number: int = 0

    @property
    def code(self) -> str:
        codes = [each[2] for each in _FENCE.finditer(text(self.document))]
        languages = [each[1] for each in _FENCE.finditer(text(self.document))]
        places = [at for at, language in enumerate(languages) if language == self.language]
        return codes[places[self.number]]


def text(name: str) -> str:
    """Return a document as it is written."""
    return (ROOT / name).read_text()


def prose(name: str) -> str:
    """Return a document without its blocks of code, whose lines stay as empty ones."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text(name))


def section(name: str, title: str) -> str:
    """Return what stands between this heading of a document and the next one."""
    _, _, rest = text(name).partition(f"# {title}\n")
    assert rest, f"expected a section {title!r} in {name}"
    return re.split(r"^#{2,4} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(table: str) -> list[list[str]]:
    """Return the cells of each line of a table, the heading included."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def examples(*languages: str) -> Iterator[Example]:
    """Yield the blocks of code in these languages, of all documents."""
    for name in NAMES:
        found = [each[1] for each in _FENCE.finditer(text(name))]
        for language in languages:
            yield from (Example(name, language, at) for at in range(found.count(language)))


def links(name: str) -> list[str]:
    """Return the targets of a document's links, without those that are URLs."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(name))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(name: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
