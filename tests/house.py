"""The numbers of the house: how large its parts may be, and how large they are.

``python -m tests.house`` prints them; ``tests/unit/test_house.py`` checks each limit.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sse_push"
TESTS = ROOT / "tests"

MACHINES = {"Subscription", "Watch", "TransportStream", "BoundedProtocol", "RevocationTail"}
"""Their states are enums, each with a table of its transitions."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Number(NamedTuple):
    """One measure: the greatest value that it may have, its value, and where."""

    name: str
    limit: float
    value: float
    where: str = ""

    @property
    def is_kept(self) -> bool:
        return self.value <= self.limit


class Size(NamedTuple):
    """How many lines something has, and which it is."""

    lines: int
    name: str


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@cache
def text_of(path: Path) -> str:
    return path.read_text()


def lines_of(path: Path) -> int:
    return text_of(path).count("\n")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sizes(*kinds: type[Definition]) -> list[Size]:
    """Return the definitions of these kinds in the package, the longest first."""
    return sorted(
        (
            Size((node.end_lineno or 0) - node.lineno + 1, f"{name_of(path)}:{node.name}")
            for path in sources(PACKAGE)
            for node in ast.walk(tree_of(path))
            if isinstance(node, kinds)
        ),
        reverse=True,
    )


PROGRAMS = {TESTS / name for name in ("simulation", "faults", "checker", "bench")}
"""Each is a program of its own, with its world."""


GATE = {TESTS / "house.py", TESTS / "repeat.py"}
"""What runs the tests, or measures them."""


def helpers() -> list[Path]:
    """Return the harness, and what stands beside tests for them alone."""
    return [
        path
        for path in sources(TESTS)
        if not path.name.startswith("test_")
        and not PROGRAMS & set(path.parents)
        and path not in GATE
    ]


def state_booleans() -> Iterator[str]:
    """Yield the attributes of the machines that are set to a boolean, or said to be one."""
    for path in sources(PACKAGE):
        for machine in ast.walk(tree_of(path)):
            if isinstance(machine, ast.ClassDef) and machine.name in MACHINES:
                found = {name for node in ast.walk(machine) if (name := _boolean(node)) is not None}
                yield from sorted(f"{machine.name}.{name}" for name in found)


def _boolean(node: ast.AST) -> str | None:
    """Return the name of the attribute that this statement makes a boolean."""
    match node:
        case ast.Assign(
            targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)],
            value=ast.Constant(value=bool()),
        ):
            return name
        case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=ast.Name(id="bool")):
            return name
        case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="bool")):
            return name
    return None


def places_of_uvicorn() -> set[str]:
    """Return the folders whose modules import from uvicorn."""
    return {
        name_of(path.parent)
        for path in sources(PACKAGE)
        if re.search(r"^\s*(from|import) uvicorn\b", text_of(path), re.MULTILINE)
    }


def largest(name: str, limit: float, found: list[Size]) -> Number:
    size = max(found)
    return Number(name, limit, size.lines, size.name)


def entries() -> Number:
    """Return how many modules and packages stand at the top of the package."""
    top = [
        path
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    return Number("entries at the top of sse_push", 18, len(top))


def modules() -> Number:
    paths = [path for path in sources(PACKAGE) if path.name != "settings.py"]
    return largest(
        "largest module, settings aside",
        330,
        [Size(lines_of(path), name_of(path)) for path in paths],
    )


def classes() -> Number:
    found = [size for size in sizes(ast.ClassDef) if not size.name.endswith(":Settings")]
    return largest("largest class, settings aside", 240, found)


def long_functions() -> Number:
    found = [size for size in sizes(ast.FunctionDef, ast.AsyncFunctionDef) if size.lines > 40]
    return Number("functions over 40 lines", 1, len(found), ", ".join(name for _, name in found))


def longest_function() -> Number:
    return largest("longest function", 60, sizes(ast.FunctionDef, ast.AsyncFunctionDef))


def machines() -> Number:
    found = list(state_booleans())
    return Number("booleans of the five machines", 4, len(found), ", ".join(found))


def uvicorn() -> Number:
    found = places_of_uvicorn()
    return Number("places that know uvicorn", 1, len(found), ", ".join(sorted(found)))


def came() -> Number:
    found = [
        f"{name_of(path)}:{number}"
        for path in [*sources(PACKAGE), *(ROOT / "client").glob("*.[jd]*s")]
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if re.search(r"\bcame\b", line)
    ]
    return Number('lines with "came"', 0, len(found), ", ".join(found[:5]))


def readme_lines() -> Number:
    return Number("README, lines", 200, lines_of(ROOT / "README.md"))


def readme_words() -> Number:
    return Number("README, words", 1500, len(text_of(ROOT / "README.md").split()))


def test_files() -> Number:
    found = [Size(lines_of(path), name_of(path)) for path in TESTS.rglob("test_*.py")]
    return largest("largest test file", 600, found)


def test_helpers() -> Number:
    return Number("lines that tests share", 4600, sum(map(lines_of, helpers())))


def tests_for_code() -> Number:
    code = sum(map(lines_of, sources(PACKAGE)))
    tests = sum(map(lines_of, sources(TESTS)))
    return Number("lines of tests for a line of code", 3.0, round(tests / code, 2))


MEASURES: dict[str, Callable[[], Number]] = {
    measure.__name__: measure
    for measure in (
        entries,
        modules,
        classes,
        long_functions,
        longest_function,
        machines,
        uvicorn,
        came,
        readme_lines,
        readme_words,
        test_files,
        test_helpers,
        tests_for_code,
    )
}


def main() -> int:
    """Print every number beside its limit; return 1 if one is above."""
    numbers = [measure() for measure in MEASURES.values()]
    for number in numbers:
        mark = " " if number.is_kept else "!"
        measured = f"{number.name:34} {number.value:8g}  at most {number.limit:<6g}"
        sys.stdout.write(f"{mark} {measured} {number.where}\n")
    return 0 if all(number.is_kept for number in numbers) else 1


if __name__ == "__main__":
    sys.exit(main())
