"""The house keeps its numbers: nothing grows beyond the limits of ``tests/house.py``."""

from __future__ import annotations

import ast

import pytest

from tests.faults.__main__ import modules
from tests.faults.processes import load
from tests.house import MACHINES, MEASURES, PACKAGE, sources, tree_of


@pytest.mark.parametrize("name", MEASURES)
def test_a_number_is_within_its_limit(name: str) -> None:
    number = MEASURES[name]()
    assert number.is_kept, number


def test_the_five_machines_are_where_their_booleans_are_counted() -> None:
    classes = {
        node.name
        for path in sources(PACKAGE)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
    }
    assert classes >= MACHINES


def test_each_fault_is_in_the_file_of_its_number() -> None:
    for name in modules():
        letter, _, number = load(name).FAULT.number.lower().partition("-")
        digits, suffix = number.rstrip("bc"), number.lstrip("0123456789")
        assert name.startswith(f"{letter}{digits:0>2}{suffix}_"), name
