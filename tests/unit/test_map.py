"""The map in ``sse_push/__init__.py`` and page one of ``access``: each name in them exists."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import sse_push
from sse_push import access
from sse_push.settings import Settings

PACKAGE = Path(sse_push.__file__).parent
PARTS = {
    path.stem
    for path in PACKAGE.iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
} - {"__init__"}


def names_in(text: str | None) -> set[str]:
    """Return what the text has in double backticks, endpoints aside."""
    return {name for name in re.findall(r"``([^`]+)``", text or "") if " " not in name}


def exists(name: str, package: str = "sse_push") -> bool:
    """Return whether a name is a module, something in a module, a file, or a setting."""
    if name in Settings.model_fields or (PACKAGE / name).is_file():
        return True
    parts = [package, *name.split(".")]
    modules = 1
    while modules < len(parts) and find_spec(".".join(parts[: modules + 1])) is not None:
        modules += 1
        if not hasattr(importlib.import_module(".".join(parts[:modules])), "__path__"):
            break
    found: object = importlib.import_module(".".join(parts[:modules]))
    for part in parts[modules:]:
        found = getattr(found, part, None)
    return modules > 1 and found is not None


@pytest.mark.parametrize("name", sorted(names_in(sse_push.__doc__)))
def test_the_map_names_only_what_exists(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_map_names_every_package_and_module(part: str) -> None:
    assert part in names_in(sse_push.__doc__)


def test_the_map_is_short() -> None:
    assert len((sse_push.__doc__ or "").splitlines()) <= 40


@pytest.mark.parametrize("name", sorted(names_in(access.__doc__)))
def test_page_one_of_access_names_only_what_exists(name: str) -> None:
    assert exists(name, "sse_push.access")


def test_page_one_of_access_names_every_module() -> None:
    modules = {path.stem for path in (PACKAGE / "access").glob("*.py")} - {"__init__"}

    assert modules <= {name.partition(".")[0] for name in names_in(access.__doc__)}


@pytest.mark.parametrize(
    "name", ["hubs", "hub.gone", "errors.EndReason.GONE", "docs/gone.md", "gone_s", "hub.hub.hub.x"]
)
def test_a_name_that_does_not_exist_is_found_out(name: str) -> None:
    assert not exists(name)
