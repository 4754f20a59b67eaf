"""New keys, for whoever reads the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sse_push.cli.keys import keys
from sse_push.runtime.env_file import read_env_file
from sse_push.settings import Settings


def printed(*flags: str) -> str:
    result = CliRunner().invoke(keys, flags, standalone_mode=False)
    assert result.return_value == 0
    return result.stdout


def test_the_keys_are_settings_that_serve_accepts_and_new_each_time(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(printed())
    file = read_env_file(path)

    settings = Settings.load(file)

    assert settings.has_tokens
    assert isinstance(settings.notify_keys, tuple)
    assert [key.secret.get_secret_value() for key in settings.notify_keys] == [
        file.texts["SSE_PUSH_NOTIFY_KEY"]
    ]
    assert file.texts.keys() == json.loads(printed("--json")).keys()
    assert not {*file.texts.values()} & {*read(printed()).values()} - {"token"}


def read(text: str) -> dict[str, str]:
    """Read a file as Docker does: all behind the first = is the value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_a_shell_and_docker_read_the_same_as_the_service(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(printed())

    script = "set -a; . ./.env; env"
    shell = subprocess.run(
        ["sh", "-euc", script], cwd=tmp_path, env={}, stdout=subprocess.PIPE, check=True
    ).stdout.decode()

    in_shell = {name: text for name, text in read(shell).items() if name.startswith("SSE_PUSH_")}
    assert in_shell == read(path.read_text()) == read_env_file(path).texts
    assert all(len(line) <= 100 for line in path.read_text().splitlines())


@pytest.mark.parametrize(("before", "mode"), [(b"", 0o600), (b"# mine\n", 0o644)])
def test_a_new_file_is_closed_to_others_and_one_that_has_something_stays(
    tmp_path: Path, before: bytes, mode: int
) -> None:
    path = tmp_path / ".env"
    path.write_bytes(before)
    path.chmod(0o644)

    program = "from sse_push.cli.keys import keys; keys()"
    with path.open("ab") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)

    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes().startswith(before + b"# Secrets")
