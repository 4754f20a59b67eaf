from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.access import APP, COOKIE, LIMITED_KEY
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service, serving
from tests.harness.tokens import AUDIENCE, ISSUER, NEXT_SECRET, SECRET, jwk_set, public_jwk
from tests.harness.waiting import SECOND


@pytest.fixture(scope="module")
def guarded(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that requires tokens, signed with any algorithm that it supports."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = jwk_set(
        folder / "keys.json",
        public_jwk("RS256", kid="rsa"),
        public_jwk("ES256"),
        public_jwk("EdDSA"),
    )
    with serving(
        folder,
        redis.url,
        *("--subscribe-auth", "token"),
        notify_keys=f"{KEY},{LIMITED_KEY} 42 shop-*",
        heartbeat_s=1,
        refresh_interval_ms=1,
        drain_s=1,
        token_keys=f"old={SECRET}, new={NEXT_SECRET}",
        token_keys_file=keys,
        token_algorithms="HS256,RS256,ES256,EdDSA",
        token_audience=AUDIENCE,
        token_issuer=ISSUER,
        token_cookie=COOKIE,
        token_expiring_s=1,
        allowed_origins=f"{APP}, http://localhost:5173, https://*.shop.test, capacitor://localhost",
    ) as started:
        yield started
    assert not re.search(r"eyJ|secret", started.log)


@pytest.fixture
async def client(guarded: Service) -> AsyncGenerator[httpx2.AsyncClient]:
    async with plain_http.AsyncClient(base_url=guarded.url, timeout=5 * SECOND) as made:
        yield made
