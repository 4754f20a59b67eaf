"""The checker is a second judge, that must not be wrong in the same way as the service's tests."""

from __future__ import annotations

import sys

import pytest

from tests.unit.test_layout_readers import TESTS, imported

CHECKER = {path.name: path.read_text() for path in sorted((TESTS / "checker").glob("*.py"))}


@pytest.mark.parametrize("name", CHECKER)
def test_the_checker_shares_no_code_with_the_service_or_other_tests(name: str) -> None:
    strangers = {module for module, _ in imported(CHECKER[name]) if not is_its_own(module)}

    assert strangers == set(), "the standard library, and tests.checker itself"


def test_the_checker_is_looked_at() -> None:
    assert {"judge.py", "browser.py"} <= set(CHECKER)
    assert not is_its_own("tests.harness.wire")
    assert not is_its_own("sse_push.sse_client")
    assert not is_its_own("httpx2")


def is_its_own(module: str) -> bool:
    """Tell whether a module may be part of the checker."""
    is_standard = module.partition(".")[0] in sys.stdlib_module_names
    return is_standard or module.startswith("tests.checker.")
