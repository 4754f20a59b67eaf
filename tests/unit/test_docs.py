"""What the words say, checked against the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from sse_push import __version__
from sse_push.cli import _OPTIONS_OF_SERVE, main
from sse_push.errors import EndReason, Occasion
from sse_push.http.app import _CODES, _STATUSES, create_app
from sse_push.metrics import SERIES
from sse_push.runtime.uvicorn import REFUSALS
from sse_push.settings import Settings
from sse_push.stream.tail import ResyncReason

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    _, _, rest = README.partition(f" {title}\n")
    assert rest, f"README has a section {title!r}"
    return re.split(r"^#{2,3} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def shown(default: object) -> str:
    if default is None or default == ():
        return "–"
    if isinstance(default, tuple):
        return ", ".join(default)
    return f"{default:.6f}".rstrip("0").rstrip(".") if isinstance(default, float) else str(default)


def test_the_settings_table_is_the_settings() -> None:
    table = [row for row in rows(section("Settings")) if row[0].startswith("`")]

    assert table == [
        [f"`{name}`", shown(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]


def test_the_settings_that_are_flags_are_named() -> None:
    named = section("Settings").partition("An")[0].partition("|")[0]

    flags = re.findall(r"`([a-z_]+)`(?=,| and| are)", named.partition("error.")[2])

    assert flags == list(_OPTIONS_OF_SERVE)


def test_the_endpoints_table_is_the_routes(tmp_path: Path) -> None:
    table = [row[0] for row in rows(section("Endpoints"))]
    named = {match[1] for cell in table if (match := re.match(r"`(?:GET|POST) (/[a-z.]+)", cell))}

    wrapped = create_app(Settings(), tmp_path)
    app = next(cell.cell_contents for cell in wrapped.__closure__ or ())

    assert isinstance(app, Starlette)
    assert named == {route.path for route in app.routes if isinstance(route, Route)}


def test_the_errors_table_has_every_code() -> None:
    table = rows(section("Endpoints"))
    named = {
        code for row in table if row[0][:3].isdigit() for code in re.findall(r"`(\w+)`", row[1])
    }

    codes = {code for _, code in _STATUSES.values()} | set(_CODES.values())
    assert named == codes | set(REFUSALS.values())


def test_every_reason_of_a_goodbye_is_named() -> None:
    said = section("What comes over the wire")

    silent = {EndReason.CLIENT_DISCONNECTED, EndReason.STALLED}  # nobody is there to read it
    assert all(f"`{reason.value}`" in said for reason in EndReason if reason not in silent)


def test_the_metrics_table_is_the_series() -> None:
    table = [row for row in rows(section("Metrics")) if row[0].startswith("`")]

    assert table == [
        [
            f"`{name}`",
            series.kind,
            "–" if series.label is None else f"`{series.label}`",
            series.meaning,
        ]
        for name, series in SERIES.items()
    ]


@pytest.mark.parametrize(
    "value",
    [
        *(reason.value for reason in EndReason if reason.occasions != Occasion.NGINX),
        *get_args(ResyncReason),
        *("stored", "not_published", "unknown"),
    ],
)
def test_every_value_of_a_label_is_explained(value: str) -> None:
    assert f"`{value}`" in section("Metrics").rpartition("|\n")[2]


def test_the_log_lines_that_an_operator_may_act_on_are_logged() -> None:
    named = re.findall(r"`([a-z ,]+)`", section("Logs").rpartition("```")[2])
    lines = {name for name in named if name not in {"debug", "connections"}}

    source = "".join(path.read_text() for path in (ROOT / "sse_push").rglob("*.py"))
    assert len(lines) >= 6
    assert [line for line in lines if not re.search(rf'logger\.\w+\(\s*"{line}[" ]', source)] == []


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_helps_with_an_example(name: str) -> None:
    command = main.commands[name]

    assert command.help is not None
    assert f"sse-push {name}" in command.help.partition("Example:")[2]


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`((?:client|nginx|tests|sse_push)/[\w./]+)`", README)

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
