"""The flags of a client of the service, and where their values are from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sse_push.cli.flags import client_env_file_option, service_options, settings_options
from sse_push.errors import ConfigError

KEY, URL = "SSE_PUSH_NOTIFY_KEY", "SSE_PUSH_URL"


@click.command()
@service_options
def command(**given: Any) -> dict[str, Any]:
    return given


def given(*flags: str, **environ: str | None) -> dict[str, Any]:
    environ = {URL: None, KEY: None, f"{KEY}_FILE": None, **environ}
    result = CliRunner(env=environ).invoke(command, flags, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    taken: dict[str, Any] = result.return_value
    return taken


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"{KEY}=file\n{URL}=http://file\nOTHER=x\n")
    flags = ("--env-file", str(path))

    assert given() == {"url": "http://127.0.0.1:8000", "key": None, "as_json": False}
    assert given(*flags)["key"] == "file"
    assert given(*flags)["url"] == "http://file"
    assert given(*flags, **{KEY: "environ"})["key"] == "environ"
    assert given(*flags, "--key", "flag", "--json", **{KEY: "environ"}) == {
        "url": "http://file",
        "key": "flag",
        "as_json": True,
    }


def test_a_file_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".env"
    path.write_text(f"{KEY}=file")
    path.chmod(0o600)
    given("--env-file", str(path))
    assert caplog.messages == []

    path.chmod(0o644)
    given("--env-file", str(path))

    assert caplog.messages == [
        f"every user of this machine may read the env file, chmod 600 path={path}"
    ]


def test_a_key_may_be_in_a_file_and_not_in_two_places(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret\n")

    assert given("--key-file", str(path))["key"] == "secret"
    assert given(**{f"{KEY}_FILE": str(path)})["key"] == "secret"
    with pytest.raises(ConfigError, match=f"expected {KEY} or {KEY}_FILE, got both"):
        given("--key-file", str(path), **{KEY: "environ"})
    with pytest.raises(ConfigError, match=f"{KEY}_FILE: expected a file to read, got: Is a dir"):
        given("--key-file", str(tmp_path))


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x", "localhost:8000", "http://", "http://[::1", "http://h:port", "http://h:99999"),
        *("http://h/a b", "http://h\x1b", "http://\u212a"),
    ],
)
def test_what_is_no_address_of_a_service_is_refused_with_the_variable(url: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        given(**{URL: url})

    text = caught.value.format_message()
    if url:  # the environment's empty variable counts as none
        assert text.startswith(
            f"Invalid value for '--url' (env var: '{URL}'): expected http://HOST"
        )
        assert text.endswith(f"got {url!r}")


def test_the_help_names_the_variables_and_the_texts_of_settings() -> None:
    of_client = CliRunner().invoke(command, ["--help"]).stdout
    of_settings = CliRunner().invoke(click.command()(settings_options(lambda **_: 0)), ["--help"])

    for name in (URL, KEY, f"{KEY}_FILE"):
        assert f"[env var: {name}" in of_client
    assert "processes that share the listening socket  [default: 1]" in " ".join(
        of_settings.stdout.split()
    ).replace(" [default", "  [default")


def test_a_client_without_flags_of_a_file_reads_none() -> None:
    @click.command()
    @client_env_file_option
    def bare() -> int:
        return 0

    assert CliRunner().invoke(bare, [], standalone_mode=False).return_value == 0
