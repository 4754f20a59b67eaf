"""The readers of the package's sources, and what they find in sources of every form."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "sse_push"


def named(path: Path) -> str:
    """Return a module's name in the package; that of a folder's ``__init__`` is the folder's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


SOURCES = {named(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str) -> Iterator[tuple[str, str]]:
    """Yield each import as its module and the name that is taken from it, maybe none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def arrows(source: str) -> set[str]:
    """Return which modules of the package a source imports; a relative import with its dots."""
    found = set()
    for module, name in imported(source):
        package, _, within = module.partition(".")
        if package == "":
            found.add(module)
        elif package == "sse_push":
            deeper = f"{within}.{name}".removeprefix(".")
            is_module = deeper in SOURCES and not is_exported(within, name)
            found.add(deeper if is_module else within or "__init__")
    return found


def is_exported(package: str, name: str) -> bool:
    """Tell whether a package's own file has this name, which then hides a module of that name."""
    return name in {taken for _, taken in imported(SOURCES.get(package, ""))}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import sse_push", {"__init__"}),
        ("import sse_push.hub as h, os", {"hub"}),
        ("from sse_push import hub, __version__", {"hub", "__init__"}),
        ("from sse_push.hub import hub", {"hub.hub"}),
        ("from sse_push.stream import Follower", {"stream"}),
        ("from sse_push.stream import tail", {"stream.tail"}),
        ("from sse_push.stream import examine", {"stream"}),  # the function of that name
        ("from sse_push.stream.tail import Tail", {"stream.tail"}),
        ("from . import hub", {"."}),
        ("from ..hub import Hub", {"..hub"}),
        ("def late():\n    from sse_push.http.app import create_app", {"http.app"}),
        ("import sse_pusher", set()),
    ],
)
def test_an_import_is_found_however_it_is_written(source: str, found: set[str]) -> None:
    assert arrows(source) == found
