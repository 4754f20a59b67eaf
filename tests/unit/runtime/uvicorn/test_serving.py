"""``force_exit`` only; the server and its workers run in ``integration/test_server.py``."""

from __future__ import annotations

from types import FrameType
from typing import Any, cast

import uvicorn

from sse_push.runtime.uvicorn import force_exit


class ServerOfAnotherMake:
    force_exit = False

    def handle_exit(self, _number: int, _frame: FrameType | None) -> None:
        raise NotImplementedError


def test_the_server_of_a_handler_is_forced_to_exit() -> None:
    server = uvicorn.Server(uvicorn.Config(cast("Any", None), log_config=None))

    force_exit(server.handle_exit)

    assert server.force_exit


def test_a_handler_of_another_server_or_of_none_has_no_effect() -> None:
    other = ServerOfAnotherMake()

    force_exit(other.handle_exit)
    force_exit(None)
    force_exit(lambda *_: None)

    assert not other.force_exit
