"""The servers that tests share: one Redis and one service for all, publishers for each test."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncGenerator, Generator

import pytest

from tests.harness.machine import VARIABLE
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and each program that a test interrupts would inherit
    # it. What is handled here is the default again in a child.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    *("test_cli", "test_server", "test_pauses", "test_fuzz", "test_streams", "test_revoke"),
    *("test_embedded", "test_acl", "test_metrics", "test_probe", "test_lifetimes", "test_requests"),
)
"""The files that take 25 s and more, the longest first; only the end of the gate depends on it."""

_numbers = itertools.count(1)


def pytest_report_header() -> str:
    return f"deadlines: a second is {SECOND:g} s here and now ({VARIABLE} overrides)"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that the last ones are short, in whatever order else."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: ("unit" in item.path.parts, places.get(item.path.stem, len(places)))
    )


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    server = Redis.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def service(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """One worker, and times that tests can wait for."""
    with serving(
        tmp_path_factory.mktemp("service"),
        redis.url,
        heartbeat_s=1,
        probe_interval_s=1,
        probe_deadline_s=2 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture(scope="session")
def workers(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """Two workers behind one port."""
    with serving(
        tmp_path_factory.mktemp("workers"),
        redis.url,
        "--workers",
        "2",
        probe_interval_s=1,
        probe_deadline_s=2 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture
async def publisher(service: Service) -> AsyncGenerator[Publisher]:
    backend = Publisher(service.url)
    yield backend
    await backend.close()


@pytest.fixture
def merchant() -> str:
    """A merchant of this test's own."""
    return f"m-{next(_numbers)}"
