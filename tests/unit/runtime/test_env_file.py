"""A file of variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sse_push.errors import ConfigError
from sse_push.runtime.env_file import read_env_file


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_env_file(path)
    text = str(caught.value)
    assert "hunter2" not in text
    return text.removeprefix(str(path))


def test_a_file_has_variables_comments_and_empty_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeff# a comment\r\n\nSSE_PUSH_PORT=8001\r\n  export SSE_PUSH_UDS=\n"
        "sse_push_workers='4'\nDATABASE=\"any\\thing\nSSE_PUSH_NOTIFY_KEYS=KEY 42 shop-*  \n"
        'SSE_PUSH_REDIS_URL="redis://h/0#\'x"\nSSE_PUSH_TOKEN_ISSUER=\'$a "b" # c\'',
    )

    file = read_env_file(path)

    assert file.texts == {
        "SSE_PUSH_PORT": "8001",
        "SSE_PUSH_UDS": "",
        "SSE_PUSH_WORKERS": "4",
        "SSE_PUSH_NOTIFY_KEYS": "KEY 42 shop-*",
        "SSE_PUSH_REDIS_URL": "redis://h/0#'x",
        "SSE_PUSH_TOKEN_ISSUER": '$a "b" # c',
    }
    assert (file.lines["SSE_PUSH_PORT"], file.lines["SSE_PUSH_TOKEN_ISSUER"]) == (3, 9)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("hunter2", "expected NAME=VALUE, without blanks around the =, got something else"),
        ("SSE_PUSH_PORT = 1", "expected NAME=VALUE, without blanks around the =, got some"),
        ("SSE_PUSH_PORT= 1", "expected NAME=VALUE, without blanks around the =, got some"),
        ("1SSE_PUSH_PORT=1", "expected NAME=VALUE"),
        ("SSE_PUSH_A=\0hunter2", "SSE_PUSH_A: expected no NUL, got one"),
        ("SSE_PUSH_A=hunter2 # note", "SSE_PUSH_A: expected a comment on a line of its own"),
        ("SSE_PUSH_FIRST=hunter2", "expected SSE_PUSH_FIRST once, got it in line 1 too"),
        *(
            (f"SSE_PUSH_A={value}", "SSE_PUSH_A: expected a value without \" ' \\ $ `, or all of")
            for value in (
                *("hunter2$x", "hunter2`x`", "hunter2\\x", "'hunter2", "hunter2'", "hun'ter2"),
                *('"hunter2$x"', '"hunter2\\""', '"hunter2', "'hunter2''"),
            )
        ),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, line: str, error: str) -> None:
    path = written(tmp_path, f"SSE_PUSH_FIRST=1\n{line}\n")

    assert error_of(path).startswith(f", line 2: {error}")


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    assert error_of(written(tmp_path, b"A=1\nB=\xff\n")) == (
        ", line 2: expected UTF-8, got something else"
    )
    assert error_of(written(tmp_path, b"#" * 1_048_577)) == (
        ": expected at most 1048576 bytes, got more"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path) == ": expected a file to read, got: Is a directory"
    assert error_of(tmp_path / "x") == ": expected a file to read, got: No such file or directory"


def test_a_file_that_others_may_read_is_known_and_a_pipe_is_not_one(tmp_path: Path) -> None:
    path = written(tmp_path, "SSE_PUSH_PORT=1")
    closed = read_env_file(path)
    path.chmod(0o604)
    read_end, write_end = os.pipe()
    os.write(write_end, b"SSE_PUSH_PORT=2")
    os.close(write_end)

    piped = read_env_file(Path(f"/dev/fd/{read_end}"))

    os.close(read_end)
    assert piped.texts == {"SSE_PUSH_PORT": "2"}
    assert [closed.is_open_to_all, read_env_file(path).is_open_to_all, piped.is_open_to_all] == [
        False,
        True,
        False,
    ]
