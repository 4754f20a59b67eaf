"""Secrets for settings, and what is read from settings or from the error about them."""

from __future__ import annotations

import pytest

from sse_push.access.keys import NotifyKey
from sse_push.errors import ConfigError
from sse_push.settings import Settings

KEY = "k1-0123456789abcdef-0123456789abcdef"
OTHER_KEY = "k2-0123456789abcdef-0123456789abcdef"
PASSWORD = "hunter2"
SECRET = "a-secret-0123456789-0123456789-ab"


def error_of(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(**flags)
    return str(caught.value)


def secrets_of(values: tuple[NotifyKey, ...] | str | None) -> list[str]:
    assert isinstance(values, tuple)
    return [value.secret.get_secret_value() for value in values]
