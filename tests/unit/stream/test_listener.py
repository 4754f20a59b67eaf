from __future__ import annotations

import inspect

import pytest

from sse_push.hub import Hub
from sse_push.stream.listener import Listener


@pytest.mark.parametrize("name", ["armed", "publish", "revoke", "revoke_all"])
def test_the_hub_is_a_listener(name: str) -> None:
    wanted, is_there = (inspect.signature(getattr(each, name)) for each in (Listener, Hub))

    assert list(wanted.parameters) == list(is_there.parameters)
