"""The readers of ``test_layout``: what they find in sources of every form."""

from __future__ import annotations

import pytest

from tests.unit.test_layout import arrows
from tests.unit.test_layout_places import libraries, reads_environment


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import sse_push", {"__init__"}),
        ("import sse_push.hub as h, os", {"hub"}),
        ("from sse_push import hub, __version__", {"hub", "__init__"}),
        ("from sse_push.hub import hub", {"hub.hub"}),
        ("from sse_push.stream import Follower", {"stream"}),
        ("from sse_push.stream import tail", {"stream.tail"}),
        ("from sse_push.stream import examine", {"stream"}),  # the function of that name
        ("from sse_push.stream.tail import Tail", {"stream.tail"}),
        ("from . import hub", {"."}),
        ("from ..hub import Hub", {"..hub"}),
        ("def late():\n    from sse_push.http.app import create_app", {"http.app"}),
        ("import sse_pusher", set()),
    ],
)
def test_an_import_is_found_however_it_is_written(source: str, found: set[str]) -> None:
    assert arrows(source) == found


@pytest.mark.parametrize("source", ["import redis", "from redis.asyncio import Redis"])
def test_a_library_is_found_however_it_is_imported(source: str) -> None:
    assert libraries(source) == {"redis"}


@pytest.mark.parametrize(
    ("source", "is_read"),
    [
        ("import os\nos.environ['A']", True),
        ("import os as o\no.getenv('A')", True),
        ("from os import environ", True),
        ("from os import getenv as g", True),
        ("import os\nos.environ['A'] = os.environ['B']", True),
        ("import os\nos.environ.pop('A')", True),
        ("import os\nos.environ['A'] += 'B'", True),
        ("import os\nos.environ['A'] = 'B'\ndel os.environ['A']", False),
        ("import os\nos.getpid()", False),
        ("environ = {}", False),
    ],
)
def test_a_read_of_the_environment_is_found(source: str, *, is_read: bool) -> None:
    assert reads_environment(source) is is_read
