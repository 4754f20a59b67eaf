"""One service with little room for all tests of limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import pytest

from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.waiting import SECOND
from tests.integration.limits.room import (
    KEYS,
    MAX,
    MAX_PER_ADDRESS,
    MAX_PER_MERCHANT,
    PROXY,
    REQUEST_TIMEOUT_S,
    until_empty,
)


@pytest.fixture(scope="package")
def small(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service with little room, which trusts one proxy."""
    with serving(
        tmp_path_factory.mktemp("small"),
        redis.url,
        *("--notify-keys", ",".join([KEY, *KEYS])),
        max_connections=MAX,
        max_connections_per_merchant=MAX_PER_MERCHANT,
        max_connections_per_address=MAX_PER_ADDRESS,
        trusted_proxies=PROXY,
        request_timeout_s=REQUEST_TIMEOUT_S,
        notify_rate_per_s=2,
        notify_burst=4,
        heartbeat_s=SECOND,
        drain_s=0.5,
    ) as started:
        yield started


@pytest.fixture
async def empty(small: Service) -> AsyncGenerator[Service]:
    """The same service, once no connection of another test is open."""
    await until_empty(small)
    yield small
    await until_empty(small)
