"""A file of variables, such as ``sse-push keys`` prints: ``NAME=VALUE``, line by line.

Docker, systemd and a shell read such files in ways of their own. What they would read differently
is refused here, but for the quotes, which Docker takes as a part of the value. Knows the form of
the file. Does not know which variables there are.

https://docs.docker.com/reference/cli/docker/container/run/#env
https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sse_push.errors import ConfigError
from sse_push.runtime.variables import PREFIX

_SIZE_LIMIT_BYTES = 1_048_576
"""More than any list of keys takes: another file was named by mistake, or it never ends."""

_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(\S.*|)")
_SINGLE_QUOTED = re.compile(r"'([^']*)'")
_DOUBLE_QUOTED = re.compile(r'"([^"\\$`]*)"')
_BARE = re.compile(r"""[^"'\\$`]*""")


class EnvFile(NamedTuple):
    """The variables of ``sse-push`` in a file, in upper case; other variables are left out."""

    path: Path
    texts: dict[str, str]
    lines: dict[str, int]
    """Where each of them stands."""
    is_open_to_all: bool
    """Whether every user of this machine may read the file."""


def read_env_file(path: Path) -> EnvFile:
    """Read the variables of a file.

    Raises:
        ConfigError: the file can't be read, or a line is wrong; the text names the line, and shows
            nothing of it.
    """
    text, mode = _content(path)
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in _lines(text):
        try:
            name, value = _variable(line)
            _require_new(name, lines)
        except ValueError as exc:
            raise ConfigError(f"{path}, line {number}: {exc}") from None
        if name.startswith(PREFIX):
            texts[name], lines[name] = value, number
    return EnvFile(path, texts, lines, stat.S_ISREG(mode) and bool(mode & stat.S_IROTH))


def _content(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_SIZE_LIMIT_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: expected a file to read, got: {exc.strerror}") from exc
    if len(content) > _SIZE_LIMIT_BYTES:
        raise ConfigError(f"{path}: expected at most {_SIZE_LIMIT_BYTES} bytes, got more")
    try:
        return content.decode("utf-8-sig"), mode
    except UnicodeDecodeError as exc:
        number = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}, line {number}: expected UTF-8, got something else") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that says something, with its number."""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()  # of a CR too
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _variable(line: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        raise ValueError("expected NAME=VALUE, without blanks around the =, got something else")
    name = match[1].upper() if match[1].upper().startswith(PREFIX) else match[1]
    return name, _value(match[2], name) if name.startswith(PREFIX) else match[2]


def _require_new(name: str, lines: Mapping[str, int]) -> None:
    if name in lines:
        raise ValueError(f"expected {name} once, got it in line {lines[name]} too")


def _value(text: str, name: str) -> str:
    if "\0" in text:
        raise ValueError(f"{name}: expected no NUL, got one")
    if match := _SINGLE_QUOTED.fullmatch(text) or _DOUBLE_QUOTED.fullmatch(text):
        return match[1]
    if not _BARE.fullmatch(text):
        raise ValueError(
            f"{name}: expected a value without \" ' \\ $ `, or all of it in single quotes, got a "
            "value that Docker, systemd and a shell read differently"
        )
    if re.search(r"\s#", text):
        raise ValueError(
            f"{name}: expected a comment on a line of its own, or the value in single quotes, got "
            "a # behind a blank"
        )
    return text
