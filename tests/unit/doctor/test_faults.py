"""The list of faults, and the lines that are made of them."""

from __future__ import annotations

import re

import pytest

from sse_push.doctor.faults import OTHER_PROXIES, Fault, Result, has_failed
from sse_push.settings import Settings
from tests.harness.documents import ROOT

FILES = "".join(path.read_text() for path in sorted((ROOT / "nginx").rglob("*.conf")))


@pytest.mark.parametrize("fault", Fault)
def test_a_remedy_names_only_settings_and_files_that_are_there(fault: Fault) -> None:
    settings = re.findall(r"SSE_PUSH_([A-Z_]+)", fault.remedy)
    files = re.findall(r"(nginx/[\w./-]+[a-z]|docs/[\w./-]+[a-z])", fault.remedy)

    known = {name.upper() for name in Settings.model_fields} | {"NOTIFY_KEY", "TOKEN"}
    assert set(settings) <= known
    folders = {"docs": ROOT / "sse_push", "nginx": ROOT}
    assert [each for each in files if not (folders[each.split("/")[0]] / each).exists()] == []


@pytest.mark.parametrize("fault", Fault)
def test_a_directive_that_a_remedy_sets_is_in_the_files_of_nginx(fault: Fault) -> None:
    named = re.findall(r"`((?:proxy|client|gzip|ssl|error|tcp)_?[a-z_]* [^`]+)`", fault.remedy)

    forbidden = {
        "proxy_ignore_headers",
        "proxy_set_header Cookie",
        "proxy_set_header Authorization",
    }
    for directive in named:
        if not directive.startswith(tuple(forbidden)):
            assert re.sub(r"\s+", " ", directive) in re.sub(r"\s+", " ", FILES), directive


def test_a_result_is_a_line_with_what_to_do() -> None:
    fine = Result("cache", "GET /events twice", "two streams").finding
    noted = Result("cookie", "GET /events", "not examined", is_note=True).finding
    broken = Result("version", "ask", "HTTP/1.0", Fault.HTTP_1_0).finding
    late = Result("delivery", "POST /notify", "200 ms", Fault.LATE).finding

    assert fine == ("ok", "cache", "cache: GET /events twice; got two streams")
    assert noted.level == "note"
    assert broken[:2] == ("failure", "http_1_0")
    assert broken.text.startswith("version: ask; got HTTP/1.0. To do: nginx `proxy_http_version")
    assert broken.text.endswith(OTHER_PROXIES)
    assert late[:2] == ("warning", "late")


def test_a_warning_is_no_failure() -> None:
    late, broken = (Result("x", "", "", fault) for fault in (Fault.LATE, Fault.CACHE))

    assert not has_failed([late, Result("x", "", "")])
    assert has_failed([late, broken])
