from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def bare_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SSE_PUSH_"):
            monkeypatch.delenv(name)
