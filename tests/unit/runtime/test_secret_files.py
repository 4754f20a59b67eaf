"""Secrets from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sse_push.errors import ConfigError
from sse_push.runtime.secret_files import read_secrets
from sse_push.runtime.variables import FILES_OF_SECRETS


def error_of(variables: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        read_secrets(variables)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sse_push_notify_keys").write_text(" hunter2\n")
    (tmp_path / "SSE_PUSH_REDIS_URL").write_text("redis://h")
    (tmp_path / "SSE_PUSH_NOTIFY_KEY").write_text("of a backend")
    (tmp_path / "database_password").write_bytes(b"\xff")
    (tmp_path / "..data").mkdir()
    return tmp_path


@pytest.mark.parametrize("setting", FILES_OF_SECRETS)
def test_each_secret_may_be_in_a_file_of_its_own(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "secret"
    path.write_text("\na secret, \n and its end \r\n")

    assert read_secrets({FILES_OF_SECRETS[setting]: str(path)}) == {
        setting: "a secret, \n and its end"
    }


def test_a_folder_has_secrets_by_the_names_of_their_variables(folder: Path) -> None:
    assert read_secrets({"SSE_PUSH_SECRETS_DIR": str(folder)}) == {
        "notify_keys": "hunter2",
        "redis_url": "redis://h",
    }
    assert read_secrets({}) == {}


def test_a_secret_that_is_given_twice_is_refused(folder: Path) -> None:
    path, in_folder = str(folder / "sse_push_notify_keys"), {"SSE_PUSH_SECRETS_DIR": str(folder)}
    by_file = {"SSE_PUSH_NOTIFY_KEYS_FILE": path}

    assert error_of({**by_file, "SSE_PUSH_NOTIFY_KEYS": "hunter2"}) == (
        "notify_keys: expected SSE_PUSH_NOTIFY_KEYS or SSE_PUSH_NOTIFY_KEYS_FILE, got both"
    )
    assert error_of({**in_folder, "SSE_PUSH_NOTIFY_KEYS": "hunter2"}) == (
        "notify_keys: expected SSE_PUSH_NOTIFY_KEYS or SSE_PUSH_SECRETS_DIR, got both"
    )
    assert error_of({**by_file, **in_folder}) == (
        "notify_keys: expected SSE_PUSH_NOTIFY_KEYS_FILE or SSE_PUSH_SECRETS_DIR, got both"
    )
    (folder / "SSE_PUSH_NOTIFY_KEYS").write_text("hunter2")
    assert error_of(in_folder) == (
        "notify_keys: expected SSE_PUSH_NOTIFY_KEYS or sse_push_notify_keys, got both"
    )


def test_a_file_in_the_folder_that_is_no_secret_is_refused(folder: Path) -> None:
    (folder / "sse_push_port").write_text("8000")

    assert error_of({"SSE_PUSH_SECRETS_DIR": str(folder)}) == (
        "SSE_PUSH_SECRETS_DIR: expected no file of SSE_PUSH_* but SSE_PUSH_REDIS_URL, "
        "SSE_PUSH_SENTINEL_PASSWORD, SSE_PUSH_NOTIFY_KEYS, SSE_PUSH_TOKEN_KEYS, got 'sse_push_port'"
    )


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b" \n", "expected a file with a secret, got an empty one"),
        (b"hunter2 \xff", "expected a file of UTF-8, got something else"),
        (b"x" * 1_048_577, "expected at most 1048576 bytes, got more"),
    ],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "hunter2"
    path.write_bytes(content)

    variables = {"SSE_PUSH_TOKEN_SECRETS_FILE": str(path)}
    assert error_of(variables) == f"token_keys (SSE_PUSH_TOKEN_SECRETS_FILE): {error}"


@pytest.mark.parametrize(
    ("variable", "path", "error"),
    [
        (
            "SSE_PUSH_REDIS_URL_FILE",
            "/nowhere/hunter2",
            "redis_url (SSE_PUSH_REDIS_URL_FILE): expected a file to read, got: No such file or "
            "directory",
        ),
        (
            "SSE_PUSH_SECRETS_DIR",
            "/nowhere/hunter2",
            "SSE_PUSH_SECRETS_DIR: expected a folder to read, got: No such file or directory",
        ),
    ],
)
def test_a_path_that_may_be_the_secret_itself_is_not_shown(
    variable: str, path: str, error: str
) -> None:
    assert error_of({variable: path}) == error
