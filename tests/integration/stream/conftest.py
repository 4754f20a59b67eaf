from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from sse_push.runtime.embedded import embedded_server
from tests.harness.keys import REVOCATIONS_KEY
from tests.harness.redis import Redis
from tests.integration.stream.servers import Server


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A Redis that may be flushed, and whose statistics are of this file only."""
    started = Redis.start(tmp_path_factory.mktemp("own_redis"))
    yield Server(started.url)
    started.stop()


@pytest.fixture(scope="module")
def own_valkey() -> Generator[Server]:
    with embedded_server() as url:
        yield Server(url)


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two, the test once with either."""
    either: Server = request.getfixturevalue(f"own_{request.param}")
    return either


@pytest.fixture
def mortal(tmp_path: Path) -> Generator[Redis]:
    """A Redis for one test, which may break it."""
    started = Redis.start(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def clear(server: Server) -> Server:
    """A server without a revocation."""
    server.cli("DEL", REVOCATIONS_KEY)
    return server
