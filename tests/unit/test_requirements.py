"""The lock file of the gate against pyproject.toml: current, complete, and nothing besides.

The command that makes the lock stands at its top; pip-compile is of PyPI's pip-tools.
"""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "tests/requirements.lock").read_text()
LOCKED: dict[str, str] = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+) \\$", LOCK, re.MULTILINE)
}


def wanted() -> list[Requirement]:
    """Return what pyproject.toml asks for, with both extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    texts = itertools.chain(project["dependencies"], *extras)
    return [Requirement(text) for text in texts]


def needed() -> dict[str, list[Requirement]]:
    """Return the requirements of all packages that these need, as installed here, by name.

    These are the needs of this Python and of the oldest one that is supported.
    """
    found: dict[str, list[Requirement]] = {}
    waiting = wanted()
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        for extra in ("", *requirement.extras):
            waiting += [
                each for each in map(Requirement, requirements_of(name)) if is_needed(each, extra)
            ]
    return found


OLDEST = {"python_version": "3.11", "python_full_version": "3.11.0"}
"""Debian 12 has Python 3.11.2, for which a library needs more than for later ones."""


def is_needed(requirement: Requirement, extra: str) -> bool:
    """Return whether it is needed by this Python, or by the oldest one."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra, **of}) for of in ({}, OLDEST))


def requirements_of(name: str) -> list[str]:
    """Return what an installed package asks for; skip without it on a laptop."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not installed: pip install -r tests/requirements.lock")


def test_the_lock_satisfies_every_requirement() -> None:
    violated = [
        f"{each} (locked: {LOCKED.get(name)})"
        for name, found in needed().items()
        for each in found
        if name not in LOCKED or not each.specifier.contains(LOCKED[name], prereleases=True)
    ]
    assert violated == [], "make the lock anew; the command stands at its top"


def test_the_lock_has_nothing_that_is_not_needed() -> None:
    assert LOCKED.keys() - needed().keys() == set()


def test_the_lock_names_no_index_and_has_a_hash_of_every_package() -> None:
    assert re.findall(r"^\s*--(?!hash=)\S+|https?://", LOCK, re.MULTILINE) == []
    assert LOCK.count("==") == len(LOCKED)
    assert len(re.findall(r"== ?\S+ \\\n +--hash=sha256:[0-9a-f]{64}", LOCK)) == len(LOCKED)
