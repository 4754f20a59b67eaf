"""Who knows whom in the package: what its words say of it, read from its imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "sse_push"

ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "errors.refusals": set(),
    "errors": {"errors.refusals"},
    "errors.words": set(),
    "runtime": set(),
    "runtime.finding": set(),
    "runtime.line_writer": set(),
    "runtime.log_pace": set(),
    "runtime.refusals": {"errors", "runtime.log_pace"},
    "runtime.logs": {"runtime.line_writer", "runtime.log_pace"},
    "runtime.metrics_folder": set(),
    "runtime.run_folder": {"errors"},
    "runtime.socket_file": set(),
    "runtime.process": set(),
    "runtime.link": set(),
    "runtime.worker": set(),
    "runtime.backoff": set(),
    "runtime.supervision": {"runtime.backoff", "runtime.worker"},
    "runtime.service_manager": {"errors"},
    "runtime.standing": {
        "runtime.service_manager",
        "runtime.supervision",
        "runtime.worker",
    },
    "runtime.supervisor": {
        "runtime.link",
        "runtime.process",
        "runtime.service_manager",
        "runtime.standing",
        "runtime.supervision",
    },
    "runtime.readiness": set(),
    "runtime.timer_wheel": set(),
    "runtime.uvicorn.upgrades": set(),
    "runtime.uvicorn.states": set(),
    "runtime.uvicorn.waiting": {"runtime.log_pace", "runtime.timer_wheel"},
    "runtime.uvicorn.unchunked": set(),
    "runtime.uvicorn.answering": {"runtime.uvicorn.unchunked", "runtime.uvicorn.waiting"},
    "runtime.uvicorn.protocol": {
        "errors",
        "runtime.refusals",
        "runtime.timer_wheel",
        "runtime.uvicorn.answering",
        "runtime.uvicorn.states",
        "runtime.uvicorn.upgrades",
        "runtime.uvicorn.waiting",
    },
    "runtime.uvicorn.serving": {"runtime.link", "runtime.uvicorn.protocol"},
    "runtime.uvicorn.takeover": {"runtime.uvicorn.answering"},
    "runtime.uvicorn": {
        "runtime.uvicorn.protocol",
        "runtime.uvicorn.serving",
        "runtime.uvicorn.takeover",
        "runtime.uvicorn.unchunked",
        "runtime.uvicorn.waiting",
    },
    "runtime.embedded": {"errors", "runtime.process", "runtime.run_folder"},
    "notification": {"errors", "errors.words"},
    "access": set(),
    "access.keys": {"errors", "notification"},
    "settings": {"access.keys", "errors"},
    "access.grant": {"errors", "notification"},
    "access.proxies": set(),
    "access.hosts": {"errors"},
    "access.origin": {"errors"},
    "access.room": {"errors"},
    "access.rate": {"access.keys"},
    "access.token_keys": {"access.keys", "errors"},
    "access.tokens": {"access.keys", "access.token_keys", "errors", "notification"},
    "access.gate": {
        "access.grant",
        "access.keys",
        "access.proxies",
        "access.tokens",
        "errors",
        "notification",
    },
    "access.revocation": {"access.grant", "errors", "errors.words", "notification"},
    "hub.refresh": {"notification"},
    "hub.expiry": {"runtime.timer_wheel"},
    "hub.state": {
        "access.grant",
        "errors",
        "hub.expiry",
        "hub.refresh",
        "notification",
        "runtime.timer_wheel",
    },
    "hub.frames": {"hub.refresh", "hub.state"},
    "hub.fan_out": {
        "hub.frames",
        "hub.refresh",
        "hub.state",
        "notification",
        "runtime.timer_wheel",
    },
    "hub.heartbeats": {"errors", "hub.state", "runtime.timer_wheel"},
    "hub.grants": {
        "access.grant",
        "access.revocation",
        "errors",
        "hub.expiry",
        "hub.state",
        "runtime.timer_wheel",
    },
    "hub.hub": {
        "access.grant",
        "access.revocation",
        "errors",
        "hub.fan_out",
        "hub.grants",
        "hub.heartbeats",
        "hub.refresh",
        "hub.state",
        "notification",
        "runtime.timer_wheel",
    },
    "hub": {"hub.hub", "hub.refresh", "hub.state"},
    "event_stream.wire": {"hub", "notification"},
    "event_stream.resume": {"errors", "hub", "notification"},
    "event_stream.gaps": {"event_stream.resume", "hub", "notification"},
    "event_stream.shared": {"errors", "event_stream.gaps", "event_stream.wire", "hub"},
    "event_stream.opening": {
        "access.grant",
        "errors",
        "event_stream.gaps",
        "event_stream.resume",
        "event_stream.shared",
        "event_stream.wire",
        "hub",
        "notification",
    },
    "event_stream.transport": {
        "access.grant",
        "errors",
        "event_stream.opening",
        "event_stream.shared",
        "event_stream.wire",
        "hub",
    },
    "event_stream.portable": {
        "access.grant",
        "errors",
        "event_stream.opening",
        "event_stream.shared",
        "event_stream.wire",
    },
    "event_stream.response": {
        "access.grant",
        "event_stream.portable",
        "event_stream.shared",
        "event_stream.transport",
        "runtime.uvicorn",
    },
    "event_stream": {
        "event_stream.gaps",
        "event_stream.portable",
        "event_stream.resume",
        "event_stream.response",
        "event_stream.shared",
        "event_stream.wire",
    },
    "sse_client": {"errors"},
    "stream.schedule": set(),
    "stream.reads": {"access.revocation", "notification"},
    "stream.watch": {"notification", "stream.reads", "stream.schedule"},
    "stream.sweep": set(),
    "stream.turns": {"stream.schedule", "stream.sweep", "stream.watch"},
    "stream.tail": {"notification", "stream.reads", "stream.turns", "stream.watch"},
    "stream.revocations": {"access.revocation", "stream.reads", "stream.schedule"},
    "stream.contract": {"access.revocation", "errors", "notification", "stream.reads"},
    "stream.replies": set(),
    "stream.parser": set(),
    "stream.window": set(),
    "stream.leftovers": set(),
    "stream.standing": set(),
    "stream.connection": {"stream.contract", "stream.parser", "stream.replies"},
    "stream.lifetimes": set(),
    "stream.listener": {"access.revocation", "notification"},
    "stream.histories": {"notification", "stream.listener"},
    "stream.outcomes": {
        "access.revocation",
        "errors",
        "notification",
        "stream.contract",
        "stream.reads",
        "stream.replies",
    },
    "stream.append": {
        "access.revocation",
        "errors",
        "notification",
        "stream.connection",
        "stream.contract",
        "stream.histories",
        "stream.lifetimes",
        "stream.outcomes",
        "stream.reads",
        "stream.replies",
    },
    "stream.pipeline": {"stream.connection", "stream.contract", "stream.parser", "stream.window"},
    "stream.aside": {
        "stream.connection",
        "stream.contract",
        "stream.parser",
        "stream.pipeline",
        "stream.replies",
        "stream.standing",
        "stream.window",
    },
    "stream.planting": {
        "stream.contract",
        "stream.lifetimes",
        "stream.pipeline",
        "stream.reads",
        "stream.replies",
        "stream.watch",
    },
    "stream.probe": {"errors", "notification", "stream.contract", "stream.reads", "stream.replies"},
    "stream.known_revocations": {
        "stream.aside",
        "stream.contract",
        "stream.listener",
        "stream.pipeline",
        "stream.replies",
        "stream.revocations",
    },
    "stream.known_merchants": {
        "stream.aside",
        "stream.contract",
        "stream.leftovers",
        "stream.parser",
        "stream.pipeline",
        "stream.planting",
        "stream.replies",
        "stream.tail",
        "stream.watch",
    },
    "stream.follow": {
        "notification",
        "stream.aside",
        "stream.connection",
        "stream.contract",
        "stream.histories",
        "stream.known_merchants",
        "stream.known_revocations",
        "stream.leftovers",
        "stream.listener",
        "stream.pipeline",
        "stream.planting",
        "stream.probe",
        "stream.reads",
        "stream.replies",
        "stream.tail",
    },
    "stream.examine": {
        "errors",
        "notification",
        "runtime.finding",
        "stream.connection",
        "stream.contract",
        "stream.reads",
        "stream.replies",
        "stream.window",
    },
    "stream": {
        "stream.append",
        "stream.examine",
        "stream.follow",
        "stream.listener",
        "stream.outcomes",
        "stream.planting",
        "stream.reads",
    },
    "metrics.series": set(),
    "metrics.files": {"runtime.readiness"},
    "metrics.metrics": {
        "event_stream",
        "event_stream.wire",
        "hub",
        "metrics.files",
        "metrics.series",
        "notification",
        "runtime.metrics_folder",
        "runtime.readiness",
        "runtime.refusals",
        "stream",
    },
    "metrics": {"metrics.metrics", "metrics.series"},
    "http": set(),
    "http.paths": set(),
    "http.parameters": {"errors", "errors.words"},
    "http.bodies": {"errors", "notification"},
    "http.schemas": {"access.revocation", "errors", "http.bodies", "notification"},
    "http.openapi": {
        "__init__",
        "access.gate",
        "access.origin",
        "errors",
        "event_stream.wire",
        "http.bodies",
        "http.parameters",
        "http.paths",
        "http.schemas",
    },
    "http.service": {
        "access.gate",
        "access.origin",
        "access.proxies",
        "access.rate",
        "access.revocation",
        "access.room",
        "access.token_keys",
        "access.tokens",
        "event_stream",
        "event_stream.wire",
        "hub",
        "metrics",
        "runtime.readiness",
        "runtime.refusals",
        "runtime.uvicorn",
        "settings",
        "stream",
    },
    "http.answers": {
        "errors",
        "event_stream.wire",
        "http.paths",
        "notification",
        "runtime.uvicorn",
    },
    "http.endpoints": {
        "access.gate",
        "access.keys",
        "access.origin",
        "access.revocation",
        "access.room",
        "errors",
        "event_stream",
        "event_stream.wire",
        "http.answers",
        "http.bodies",
        "http.parameters",
        "http.service",
        "notification",
    },
    "http.app": {
        "access.hosts",
        "access.origin",
        "access.room",
        "errors",
        "event_stream",
        "http.answers",
        "http.endpoints",
        "http.openapi",
        "http.paths",
        "http.service",
        "hub",
        "runtime.link",
        "runtime.process",
        "runtime.uvicorn",
        "settings",
    },
    "server": {
        "errors",
        "http.app",
        "runtime.link",
        "runtime.metrics_folder",
        "runtime.process",
        "runtime.run_folder",
        "runtime.service_manager",
        "runtime.socket_file",
        "runtime.supervision",
        "runtime.supervisor",
        "runtime.uvicorn",
        "settings",
    },
    "asgi": {
        "errors",
        "http.app",
        "runtime.log_pace",
        "runtime.logs",
        "runtime.run_folder",
        "server",
        "settings",
    },
    "demo.cinema": set(),
    "demo.backend": {"demo.cinema", "errors", "http.bodies", "http.paths", "notification"},
    "demo.audience": set(),
    "demo.crowd": {"demo.audience", "demo.cinema", "http.paths", "sse_client"},
    "demo.run": {
        "demo.backend",
        "demo.cinema",
        "demo.crowd",
        "runtime.run_folder",
        "server",
        "settings",
    },
    "demo": {"demo.run"},
    "doctor.target": {"errors", "http.paths"},
    "doctor.faults": {"runtime.finding"},
    "doctor.network": {"doctor.target"},
    "doctor.asking": {"__init__", "doctor.target", "sse_client"},
    "doctor.reading": {"doctor.asking", "errors", "notification", "settings"},
    "doctor.judging": {
        "doctor.asking",
        "doctor.faults",
        "doctor.network",
        "doctor.reading",
        "doctor.target",
        "errors",
        "event_stream.shared",
        "runtime.uvicorn",
        "settings",
    },
    "doctor.rights": {
        "doctor.asking",
        "doctor.faults",
        "doctor.reading",
        "doctor.target",
        "errors",
    },
    "doctor.examination": {
        "access.gate",
        "doctor.asking",
        "doctor.faults",
        "doctor.judging",
        "doctor.network",
        "doctor.reading",
        "doctor.rights",
        "doctor.target",
        "http.paths",
        "settings",
    },
    "doctor": {"doctor.examination", "doctor.faults", "doctor.target"},
    "cli.verdict": {"runtime.finding", "runtime.logs"},
    "cli.flags": {"runtime.socket_file", "settings"},
    "cli.serve": {
        "cli.flags",
        "errors",
        "http.service",
        "runtime.embedded",
        "runtime.logs",
        "runtime.service_manager",
        "server",
        "settings",
    },
    "cli.demo": {"cli.flags", "demo", "runtime.embedded", "runtime.logs", "settings"},
    "cli.check": {
        "access.tokens",
        "cli.flags",
        "cli.verdict",
        "errors",
        "http.service",
        "runtime.finding",
        "settings",
        "stream",
    },
    "cli.doctor": {"cli.flags", "cli.verdict", "doctor", "settings"},
    "cli.docs": set(),
    "cli.post": {"errors", "runtime.logs"},
    "cli.notify": {"cli.flags", "cli.post", "http.paths"},
    "cli.revoke": {"cli.flags", "cli.post", "http.paths"},
    "cli.tail": {
        "cli.flags",
        "errors",
        "http.paths",
        "notification",
        "runtime.logs",
        "settings",
        "sse_client",
    },
    "cli.token": {"access.tokens", "errors", "notification", "settings"},
    "cli": {"__init__"},
    "__main__": {"cli", "errors", "runtime.logs"},
}
"""What each module imports of the package; in an order in which none knows a later one."""


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


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    assert module in ARROWS, "a new module is a new row of the table"

    assert arrows(SOURCES[module]) == ARROWS[module]


def test_the_table_has_no_module_that_is_gone() -> None:
    assert set(ARROWS) == set(SOURCES)


def test_the_arrows_go_one_way() -> None:
    earlier: set[str] = set()
    for module, known in ARROWS.items():
        assert known <= earlier, f"{module} knows only those above it in the table"
        earlier.add(module)


def test_only_the_settings_and_what_a_service_manager_gives_are_read_from_the_environment() -> None:
    readers = {module for module in SOURCES if reads_environment(SOURCES[module])}

    assert readers == {"settings", "runtime.service_manager"}


def test_only_the_folder_of_the_metrics_is_written_into_the_environment() -> None:
    writers = [module for module in SOURCES if writes_environment(SOURCES[module])]

    assert writers == ["runtime.metrics_folder"]
