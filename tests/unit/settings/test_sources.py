"""Where settings come from, beside the environment: a file, files of secrets; and Kubernetes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sse_push.runtime.env_file import EnvFile, read_env_file
from sse_push.settings import Settings
from tests.unit.runtime.test_variables import INTERNAL, SERVICE
from tests.unit.settings.given import KEY, OTHER_KEY, SECRET, error_of, secrets_of


def file_of(folder: Path, content: str) -> EnvFile:
    path = folder / ".env"
    path.write_text(content)
    return read_env_file(path)


def test_the_environment_wins_over_the_file_and_a_flag_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("sse_push_port", "8001")
    monkeypatch.setenv("SSE_PUSH_WORKERS", "4")
    file = file_of(tmp_path, "SSE_PUSH_PORT=1\nSSE_PUSH_WORKERS=1\nSSE_PUSH_RETRY_MS=300\n")

    settings = Settings.load(file, workers="8")

    assert (settings.port, settings.workers, settings.retry_ms) == (8001, 8, 300)
    assert settings.model_fields_set == {"port", "workers", "retry_ms"}


def test_an_unknown_name_in_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = file_of(tmp_path, "# x\nSSE_PUSH_WORKER=2\n")

    with pytest.raises(Exception, match=r"\.env, line 2: SSE_PUSH_WORKER: there is no such") as got:
        Settings.load(file)
    assert str(got.value).endswith("did you mean SSE_PUSH_WORKERS?")


def test_the_file_and_the_environment_may_name_files_of_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "sse_push_token_keys").write_text(f"{SECRET}\n")
    monkeypatch.setenv("SSE_PUSH_SECRETS_DIR", str(tmp_path))
    file = file_of(
        tmp_path, f"SSE_PUSH_NOTIFY_KEYS_FILE={tmp_path}/key\nSSE_PUSH_SUBSCRIBE_AUTH=token\n"
    )

    settings = Settings.load(file)
    by_flag = Settings.load(file, notify_keys=OTHER_KEY)

    assert secrets_of(settings.notify_keys) == [KEY]
    assert settings.token_keys[0].secret.get_secret_value() == SECRET
    assert secrets_of(by_flag.notify_keys) == [OTHER_KEY]
    assert KEY not in str(settings)


def test_a_secret_in_the_environment_and_in_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEYS", KEY)
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEYS_FILE", str(tmp_path / "key"))

    assert error_of() == (
        "notify_keys: expected SSE_PUSH_NOTIFY_KEYS or SSE_PUSH_NOTIFY_KEYS_FILE, got both"
    )


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in {**SERVICE, **INTERNAL}.items():
        monkeypatch.setenv(name, text)
    passed_over = Settings.load(uds="/run/push.sock"), Settings()
    monkeypatch.setenv("SSE_PUSH_PORT", "8002")
    monkeypatch.setenv("SSE_PUSH_SERVICE_HOSTS", "10.96.0.12")

    assert [settings.port for settings in passed_over] == [8000, 8000]
    assert error_of().startswith("SSE_PUSH_SERVICE_HOSTS: there is no such setting")
    monkeypatch.delenv("SSE_PUSH_SERVICE_HOSTS")
    assert Settings.load().port == 8002


def test_a_link_is_no_port_without_a_service_of_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_PORT", SERVICE["SSE_PUSH_PORT"])

    assert error_of().startswith("port (SSE_PUSH_PORT): ")


@pytest.mark.parametrize(
    ("host", "subscribe_auth", "is_open"),
    [
        *((host, "none", True) for host in ("0.0.0.0", "::", "10.0.0.5", "push.example")),
        *((host, "none", False) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        ("0.0.0.0", "token", False),
    ],
)
def test_a_service_that_needs_no_key_is_open_to_the_network_beyond_loopback(
    host: str, subscribe_auth: str, is_open: object
) -> None:
    keys = SECRET if subscribe_auth == "token" else None
    settings = Settings.load(
        host=host, subscribe_auth=subscribe_auth, notify_keys="none", token_keys=keys
    )

    assert settings.is_open_to_network is is_open
    assert not settings.model_copy(update={"uds": "/run/push.sock"}).is_open_to_network
    assert not settings.model_copy(update={"notify_keys": ()}).is_open_to_network
