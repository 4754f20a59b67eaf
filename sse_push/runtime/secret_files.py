"""Secrets from files, as Docker, Kubernetes and systemd hand them over.

``SSE_PUSH_<NAME>_FILE`` names a file with one secret; ``SSE_PUSH_SECRETS_DIR`` a folder in which
each file has the name of its variable, in any case. Knows the files. Does not know the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sse_push.errors import ConfigError
from sse_push.runtime.variables import FILES_OF_SECRETS, OF_CLIENTS, PREFIX, SECRETS_DIR

_SIZE_LIMIT_BYTES = 1_048_576
"""More than any list of keys takes."""


def read_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets in the files that these variables name, each by the name of its setting.

    Raises:
        ConfigError: a file can't be read or has no secret, or a secret is given in two ways. No
            text has a part of a secret, nor a path: by mistake that could be the secret itself.
    """
    found: dict[str, str] = {}
    for setting, variable in FILES_OF_SECRETS.items():
        if variable in variables:
            found[setting] = read_secret(Path(variables[variable]), f"{setting} ({variable})")
    if SECRETS_DIR in variables:
        for setting, path in _files(Path(variables[SECRETS_DIR])).items():
            if setting in found:
                raise _twice(setting, FILES_OF_SECRETS[setting], SECRETS_DIR)
            found[setting] = read_secret(path, f"{setting} ({SECRETS_DIR})")
    for setting in found:
        if f"{PREFIX}{setting.upper()}" in variables:
            in_file = FILES_OF_SECRETS[setting]
            by = in_file if in_file in variables else SECRETS_DIR
            raise _twice(setting, f"{PREFIX}{setting.upper()}", by)
    return found


def read_secret(path: Path, name: str) -> str:
    """Return the text of a file, without the blanks and line ends around it.

    Raises:
        ConfigError: the file can't be read, or there is nothing in it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_SIZE_LIMIT_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{name}: expected a file to read, got: {exc.strerror}") from exc
    if len(content) > _SIZE_LIMIT_BYTES:
        raise ConfigError(f"{name}: expected at most {_SIZE_LIMIT_BYTES} bytes, got more")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: expected a file of UTF-8, got something else") from None
    if not text:
        raise ConfigError(f"{name}: expected a file with a secret, got an empty one")
    return text


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are ours, by the name of their setting."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as exc:
        raise ConfigError(f"{SECRETS_DIR}: expected a folder to read, got: {exc.strerror}") from exc
    known = {f"{PREFIX}{setting.upper()}": setting for setting in FILES_OF_SECRETS}
    found: dict[str, Path] = {}
    for path in paths:
        name = path.name.upper()
        if not name.startswith(PREFIX) or name in OF_CLIENTS:
            continue  # a secret of somebody else
        if name not in known:
            raise ConfigError(
                f"{SECRETS_DIR}: expected no file of {PREFIX}* but {', '.join(known)}, "
                f"got {path.name!r}"
            )
        if known[name] in found:
            raise _twice(known[name], found[known[name]].name, path.name)
        found[known[name]] = path
    return found


def _twice(setting: str, one: str, other: str) -> ConfigError:
    return ConfigError(f"{setting}: expected {one} or {other}, got both")
