"""What is wrong with settings that are read without a fault."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from sse_push.cli.examine import examine_settings, missing
from sse_push.runtime.env_file import EnvFile
from sse_push.runtime.finding import Finding
from sse_push.settings import Settings
from tests.unit.settings.given import KEY, SECRET

COMPLETE = {"subscribe_auth": "none", "notify_keys": KEY, "redis_url": "redis://h", "port": 0}


@pytest.fixture(autouse=True)
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_048_576))


def found(file: EnvFile | None = None, /, **flags: object) -> dict[str, Finding]:
    settings = Settings.load(**{**COMPLETE, **flags})
    return {each.name: each for each in examine_settings(settings, flags, file)}


def levels(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.level for name, finding in findings.items()}


def test_nothing_is_wrong_with_settings_that_serve_accepts() -> None:
    assert found() == {}


def test_each_required_setting_that_is_missing_is_named() -> None:
    settings = Settings.load(port=0)

    names = [name for name, _ in missing(settings)]

    assert names == ["subscribe_auth", "notify_keys", "redis_url"]
    assert [(each.level, each.name) for each in examine_settings(settings, {}, None)] == [
        ("failure", name) for name in names
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_service_for_the_network_that_needs_no_key_fails(host: str) -> None:
    assert levels(found(host=host, notify_keys="none")) == {"open_to_network": "failure"}
    assert found(host=host) == {}
    assert found(notify_keys="none") == {}


def test_keys_of_tokens_that_cannot_be_read_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "keys.pem"
    wrong.write_text("hunter2")

    findings = found(subscribe_auth="token", token_keys=SECRET, token_keys_file=wrong)

    assert levels(findings) == {"token_keys": "failure"}
    assert "hunter2" not in findings["token_keys"].text


def test_an_address_in_use_is_a_warning_and_one_that_is_not_there_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        in_use = found(port=other.getsockname()[1])
    nowhere = found(host="192.0.2.1")

    assert levels(in_use) == {"address": "warning"}
    assert in_use["address"].text.endswith("; as it should be if the service runs")
    assert levels(nowhere) == {"address": "failure"}
    assert levels(found_at(tmp_path / "missing" / "push.sock")) == {"address": "failure"}


def found_at(uds: Path, **flags: object) -> dict[str, Finding]:
    without_port = {name: value for name, value in COMPLETE.items() if name != "port"}
    settings = Settings.load(**{**without_port, "uds": str(uds), **flags})
    return {each.name: each for each in examine_settings(settings, flags, None)}


def test_a_socket_for_every_user_is_a_warning_and_fails_where_it_names_merchants() -> None:
    path = Path("/tmp") / "sse-push-test-of-examine.sock"

    assert levels(found_at(path)) == {"uds_mode": "warning"}
    by_header = found_at(path, subscribe_auth="header")
    assert levels(by_header) == {"uds_mode": "failure"}
    assert "serve refuses to start" in by_header["uds_mode"].text
    assert found_at(path, subscribe_auth="header", uds_mode="0660") == {}


def test_what_the_system_does_not_give_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))

    findings = found(run_folder=tmp_path / "missing")

    assert levels(findings) == {"run_folder": "failure", "open_files": "warning"}
    assert "needs 15256 open files, and 1024 are allowed" in findings["open_files"].text


def test_what_gives_secrets_away_is_a_warning() -> None:
    file = EnvFile(Path("/srv/.env"), {}, {}, is_open_to_all=True)

    findings = found(file, notify_keys=KEY, trusted_proxies="::/0")

    assert levels(findings) == {
        "trusted_proxies": "warning",
        "secret_flag": "warning",
        "env_file": "warning",
    }
    assert findings["env_file"].text.endswith("chmod 600 /srv/.env")
