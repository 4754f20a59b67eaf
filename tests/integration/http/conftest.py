"""One service for all tests of hostile input, in front of a Redis of its own."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.waiting import SECOND
from tests.harness.wire import ANSWER_S


@pytest.fixture(scope="package")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis to which only ``target`` sends commands."""
    server = Redis.start(tmp_path_factory.mktemp("watched"))
    yield server
    server.stop()


@pytest.fixture(scope="package")
def target(watched: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that logs all it can."""
    with serving(
        tmp_path_factory.mktemp("target"),
        watched.url,
        log_level="debug",
        drain_s=SECOND,
        probe_interval_s=1,
        probe_deadline_s=2 * SECOND,
    ) as started:
        yield started


@pytest.fixture
def publisher_of_target(target: Service) -> Generator[httpx2.Client]:
    headers: dict[str, Any] = {"Authorization": f"Bearer {KEY}"}
    with plain_http.Client(base_url=target.url, headers=headers, timeout=ANSWER_S) as client:
        yield client
