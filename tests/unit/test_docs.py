"""What the words say, checked against the code."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import get_args

import click
import pytest

from sse_push import __version__, notification
from sse_push.access import revocation
from sse_push.cli import COMMANDS, main
from sse_push.cli.flags import OPTIONS_OF_SERVE
from sse_push.errors import EndReason, Occasion, Refusal, RefusalReason
from sse_push.http.app import ROUTES
from sse_push.hub.refresh import Reason
from sse_push.metrics import SERIES
from sse_push.runtime.process import HANGING
from sse_push.runtime.variables import FILES_OF_SECRETS, OF_CLIENTS, SECRETS_DIR
from sse_push.settings import Settings
from sse_push.stream.watch import ResyncReason
from tests.bench.__main__ import CASES
from tests.faults.__main__ import choose
from tests.faults.processes import fault_of
from tests.harness.documents import (
    NAMES,
    ROOT,
    Example,
    anchors,
    examples,
    links,
    prose,
    rows,
    section,
    text,
)
from tests.harness.wire import well_formed

REFERENCE = "sse_push/docs/reference.md"
OCCASIONS = {
    Occasion.END: "end of a connection",
    Occasion.SOFT_ANSWER: "soft answer",
    Occasion.NGINX: "soft answer from nginx",
}


def shown(default: object) -> str:
    if default is None or default == ():
        return "–"
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"{default:.6f}".rstrip("0").rstrip(".") if isinstance(default, float) else str(default)


# -- the reference


def test_the_settings_table_is_the_settings() -> None:
    table = [row for row in rows(section(REFERENCE, "Settings")) if row[0].startswith("`")]

    assert table == [
        [f"`{name}`", shown(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]


def test_the_settings_that_are_flags_and_the_files_of_secrets_are_named() -> None:
    introduction = section(REFERENCE, "Settings").partition("|")[0]
    _, _, flags = introduction.partition("The settings ")

    assert re.findall(r"`([a-z_]+)`", flags)[:-1] == list(OPTIONS_OF_SERVE)
    secrets = [row for row in rows(section(REFERENCE, "Secrets in files")) if row[0][0] == "`"]
    assert [[cell.strip("`") for cell in row] for row in secrets] == [
        [setting, variable] for setting, variable in FILES_OF_SECRETS.items()
    ]
    assert f"`{SECRETS_DIR}`" in section(REFERENCE, "Secrets in files")


def test_the_variables_of_clients_are_in_a_table() -> None:
    table = [row for row in rows(section(REFERENCE, "Variables of clients")) if row[0][0] == "`"]

    assert table == [[f"`{name}`", meaning] for name, meaning in OF_CLIENTS.items()]


@pytest.mark.parametrize("name", [*NAMES, "sse_push/cli"])
def test_the_variables_that_a_document_names_are_those_that_are_read(name: str) -> None:
    path = ROOT / name
    words = path.read_text() if path.is_file() else "".join(map(Path.read_text, path.glob("*.py")))
    known = {
        *(f"SSE_PUSH_{setting.upper()}" for setting in Settings.model_fields),
        *(*OF_CLIENTS, *FILES_OF_SECRETS.values(), SECRETS_DIR),
    }

    foreign = r"(?!TEST_|SERVICE_HOST|SERVICE_PORT|INTERNAL_|PORT_8000_TCP)"
    assert set(re.findall(rf"\bSSE_PUSH_{foreign}[A-Z][A-Z_]*[A-Z]\b", words)) <= known
    assert not re.search(r"\$\{?(SSE_PUSH|KEY)\b", words), "see the variables of clients"


def test_the_commands_table_is_the_help() -> None:
    table = [row for row in rows(section(REFERENCE, "Commands")) if row[0].startswith("`")]

    assert table == [
        [
            f"`sse-push {name}`",
            re.sub(r"\s+", " ", (command.help or "").split("\n\n")[0]).rstrip("."),
        ]
        for name in COMMANDS
        for command in [command_of(name)]
    ]
    assert f"hangs exits with {HANGING}." in section(REFERENCE, "Commands")


def test_the_endpoints_table_is_the_routes() -> None:
    table = [row[0] for row in rows(section(REFERENCE, "Endpoints"))]
    named = {match[1] for cell in table if (match := re.match(r"`(?:GET|POST) (/[a-z.]+)", cell))}

    assert named == {route.path for route in ROUTES}


def test_the_errors_table_is_the_refusals() -> None:
    table = [row for row in rows(section(REFERENCE, "Errors")) if row[0][:3].isdigit()]
    named = [
        (int(status), code)
        for row in table
        for status, code in zip(row[0].split(", "), re.findall(r"`(\w+)`", row[1]), strict=True)
    ]

    assert named == [(refusal.status, refusal.value) for refusal in Refusal]


def test_the_table_of_why_requests_are_refused_is_the_reasons_of_refusals() -> None:
    table = rows(section(REFERENCE, "Why requests are refused"))[1:]

    assert [row[:3] for row in table] == [
        [f"`{each.value}`", f"`{each.refusal.value}`", f"`{each.setting}`" if each.setting else "–"]
        for each in RefusalReason
    ]


def test_the_reasons_table_is_the_reasons() -> None:
    table = [row for row in rows(section(REFERENCE, "Reasons")) if row[0].startswith("`")]

    assert [[row[0], row[1], row[3]] for row in table] == [
        [
            f"`{reason.value}`",
            ", ".join(OCCASIONS[occasion] for occasion in Occasion if occasion in reason.occasions),
            reason.reaction,
        ]
        for reason in EndReason
    ]


def test_the_metrics_table_is_the_series() -> None:
    table = [row for row in rows(section(REFERENCE, "Metrics")) if row[0].startswith("`sse_push")]

    assert [row for row in table if len(row) == 4] == [
        [
            f"`{name}`",
            series.kind,
            ", ".join(f"`{label}`" for label in series.labels) or "–",
            series.meaning,
        ]
        for name, series in SERIES.items()
    ]


@pytest.mark.parametrize(
    "value", [*get_args(ResyncReason), *("stored", "not_published", "unknown")]
)
def test_every_value_of_a_label_is_explained(value: str) -> None:
    assert f"`{value}`" in section(REFERENCE, "Metrics").partition("\n- ")[2]


def test_the_table_of_log_lines_has_every_message_from_info_on() -> None:
    table = [row[:2] for row in rows(section(REFERENCE, "Logs")) if row[0].startswith("`")]

    modules = [path for path in (ROOT / "sse_push").rglob("*.py") if path.parent.name != "demo"]
    calls = re.findall(
        r'logger\.(info|warning|error|critical)\(\s*"([^"]+)"',
        "".join(path.read_text() for path in modules),
    )
    logged = {(f"`{re.split(' [a-z_]+=%', line)[0]}`", level) for level, line in calls}
    assert {(line, level) for line, level in table} == logged


# -- reasons elsewhere


def test_the_reasons_of_nginx_are_those_of_the_list() -> None:
    files = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))
    (answer,) = re.findall(r'event: goodbye\\ndata: \{"reason":"(\S+?)"\}', files)
    (values,) = re.findall(rf"map \S+ \{answer} \{{\n(.*?)\}}", files, re.DOTALL)

    given = set(re.findall(r"^ *\S+ +(\w+);", values, re.MULTILINE))
    assert given == {reason.value for reason in EndReason.on(Occasion.NGINX)}


def test_the_codes_of_errors_in_nginx_are_those_of_refusals() -> None:
    files = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))
    (by_status,) = re.findall(r"map \$status \$sse_push_error \{\n(.*?)\}", files, re.DOTALL)

    codes = re.findall(r'^ *[0-9]+ +"(\w+)";', by_status, re.MULTILINE)
    codes += re.findall(r'\{"error":"(\w+)"', files)
    assert len(codes) >= 15
    assert {*codes} <= {refusal.value for refusal in Refusal}


def test_the_reasons_that_the_browser_module_names_are_in_the_list() -> None:
    code = (ROOT / "client/index.js").read_text()

    named = re.findall(r"reason === '(\w+)'", code)
    assert "token_expired" in named
    assert {*named} <= {reason.value for reason in EndReason.on(Occasion.END)}


def test_the_browser_module_ranks_the_reasons_of_a_refresh_as_the_service_does() -> None:
    code = (ROOT / "client/index.js").read_text()

    (listed,) = re.findall(r"^const REASONS = \[(.*?)\]", code, re.MULTILINE)
    assert re.findall(r"'(\w+)'", listed) == [*get_args(Reason)]


# -- fields, events and numbers


@pytest.mark.parametrize(
    ("name", "title", "fields"),
    [
        ("sse_push/docs/backends.md", "The fields of a notification", notification.FIELDS),
        ("sse_push/docs/access.md", "Revocation: before a token expires", revocation.FIELDS),
    ],
)
def test_a_table_of_fields_has_those_that_are_read(
    name: str, title: str, fields: Collection[str]
) -> None:
    table = [row[0].strip("`") for row in rows(section(name, title)) if row[0].startswith("`")]

    assert sorted(table) == sorted(fields)


def test_the_events_on_the_wire_are_as_the_service_writes_them() -> None:
    events = well_formed(Example("client/README.md", "text").code.encode() + b"\n", "42")
    explained = section("client/README.md", "The events on the wire").rpartition("```")[2]

    assert [event.type for event in events] == re.findall(r"^- `(\w+)`", explained, re.MULTILINE)[
        1:
    ]
    assert all(f"`{reason}`" in explained for reason in get_args(Reason))


def test_the_limits_of_nginx_are_those_of_its_files() -> None:
    files = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))
    limits = re.findall(
        r"^limit_conn \w+ (\d+);|^limit_req_zone .* rate=(\d+)r/s;", files, re.MULTILINE
    )
    introduction = text("nginx/README.md").partition("## The files")[0]
    numbers = [
        number.replace(" ", "").replace("\n", "")
        for number in re.findall(r"\d+(?:\s+\d{3})*", introduction)
    ]

    assert len(limits) == 4
    assert {"".join(limit) for limit in limits} <= set(numbers)


def test_the_modules_that_the_design_names_are_there() -> None:
    way = section("sse_push/docs/design.md", "The way of a notification")
    named = set(re.findall(r"`((?:stream|hub|event_stream)(?:/\w+)?|notification)`", way))

    assert {"notification", "stream/follow", "stream/tail", "hub"} <= named
    assert [
        name
        for name in named
        if not (ROOT / f"sse_push/{name}.py").exists() and not (ROOT / f"sse_push/{name}").is_dir()
    ] == []


@pytest.mark.parametrize(
    ("heading", "is_pubsub"),
    [
        ("What was lost under which fault", False),
        ("What was lost with PUBLISH instead of tracking", True),
    ],
)
def test_the_matrix_of_faults_has_every_fault_of_the_long_form(
    heading: str, *, is_pubsub: bool
) -> None:
    matrix = rows(section("tests/README.md", heading))
    faults = [fault_of(name) for name in choose(None, "long", is_pubsub=is_pubsub)]

    assert [row[:2] for row in matrix[1:]] == [[each.number, each.title] for each in faults]


def test_the_table_of_the_bench_has_every_figure() -> None:
    table = rows(section("tests/README.md", "How fast it is"))

    assert [[*row[:2], row[-1]] for row in table[1:]] == [
        [case.title, figure.unit, figure.bar or "–"] for case in CASES for figure in case.figures
    ]


# -- the documents themselves


def test_the_readme_is_a_landing_page() -> None:
    readme = text("README.md")

    assert len(readme.splitlines()) <= 200
    assert len(readme.split()) <= 1500


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_document_leads_somewhere(name: str) -> None:
    for target in links(name):
        path, _, anchor = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name

        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(str(linked.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_document_names_is_there(name: str) -> None:
    named = re.findall(r"`((?:client|nginx|tests|sse_push)/[\w./-]+)`", text(name))
    if name == "nginx/README.md":
        named += [f"nginx/{row[0].strip('`')}" for row in rows(section(name, "The files"))[1:]]

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_table_of_nginx_has_every_file() -> None:
    named = {row[0].strip("`") for row in rows(section("nginx/README.md", "The files"))[1:]}

    shipped = [*(ROOT / "nginx").rglob("*.conf"), ROOT / "nginx/make-certificate"]
    assert named == {str(path.relative_to(ROOT / "nginx")) for path in shipped}


@pytest.mark.parametrize("name", NAMES)
def test_a_line_of_prose_has_100_columns_at_most(name: str) -> None:
    lines = [line for line in prose(name).splitlines() if not line.startswith(("|", "    "))]

    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "README.md"])
def test_every_document_is_linked_from_the_readme(name: str) -> None:
    assert f"]({name})" in text("README.md")


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)

    assert versions[versions[0] == "Unreleased"] == __version__


def command_of(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example(name: str) -> None:
    command = command_of(name)

    assert command.help is not None
    assert f"sse-push {name}" in command.help.partition("Example:")[2]


def test_the_page_of_the_start_has_40_lines_as_it_says() -> None:
    assert Example("sse_push/docs/start.md", "html").code.count("\n") == 40
    assert "a page of 40 lines" in text("sse_push/docs/start.md")


def test_the_code_of_the_chinese_page_is_that_of_the_other_documents() -> None:
    """Those are run by tests."""
    chinese = "sse_push/docs/zh.md"
    languages = ("sh", "python", "php", "js", "html", "text", "nginx", "")
    codes = {True: set[str](), False: set[str]()}
    for example in examples(*languages):
        codes[example.document == chinese].add(example.code)

    assert codes[True]
    assert codes[True] <= codes[False]
    fences = text(chinese).count("\n```")
    assert fences == 2 * len([each for each in examples(*languages) if each.document == chinese])
