"""Commands with wrong input: one sentence each, and no secret in it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sse_push.cli import main
from sse_push.errors import ConfigError
from tests.unit.settings.given import SECRET

NOBODY = "http://127.0.0.1:1"


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(main, arguments, standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["tail", "42", "--last-event-id", "abc"], "expected the ID of an event, <ms>-<seq>.<hist"),
        (["tail", "42", "--last-event-id", "42@1-x"], "expected the ID of an event, <ms>-<seq>."),
        (["tail", "42", "--url", "ftp://x"], "expected http://HOST:PORT or https://HOST, got 'ftp"),
        (["notify", "42", "--data", '{"a": NaN}'], "expected JSON, got '{\"a\": NaN}'"),
        (["notify", "42", "--data", "{"], "expected JSON, got '{'"),
        (["notify", "42", "--data", "[" * 99_999], f"expected JSON, got '{'[' * 200}'…"),
    ],
)
def test_a_flag_with_a_wrong_value_is_a_mistake_of_usage(arguments: list[str], error: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, click.UsageError)
    assert error in result.exception.format_message()


@pytest.mark.parametrize("key", ["hunter2\n", "hünter2", "hunter2\x1b"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("notify", "42", "--key"), "SSE_PUSH_NOTIFY_KEY"),
        (("revoke", "42", "--key"), "SSE_PUSH_NOTIFY_KEY"),
        (("tail", "42", "--token"), "SSE_PUSH_TOKEN"),
    ],
)
def test_a_secret_that_no_header_can_hold_is_refused_and_not_shown(
    command: tuple[str, ...], name: str, key: str
) -> None:
    result = run(*command, key, "--url", NOBODY)

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == (
        f"{name}: expected printable ASCII on one line, got something else"
    )


def test_bytes_that_are_no_text_reach_a_request_as_they_are() -> None:
    result = run("notify", "\udcff", "--topic", "\udcff", "--url", NOBODY)

    assert str(result.exception).startswith(f"expected the service at {NOBODY}, got: ")


def test_a_token_is_signed_with_the_key_of_a_file_and_printed_for_a_script(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"SSE_PUSH_TOKEN_KEYS={SECRET}\n")

    result = run("token", "42", "--expires-in", "2m", "--env-file", str(path), "--json")

    printed = json.loads(result.stdout)
    assert printed["expires_in_s"] == 120
    assert printed["token"].count(".") == 2
