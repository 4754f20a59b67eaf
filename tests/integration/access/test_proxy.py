"""The merchant that a trusted proxy names in a header."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.access import refused, status_of
from tests.harness.nginx import Nginx, recording, yes
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND


@pytest.fixture(scope="module")
def behind(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """A service that trusts a proxy on this machine."""
    with serving(
        tmp_path_factory.mktemp("behind"),
        redis.url,
        *("--subscribe-auth", "header"),
        trusted_proxies="10.0.0.0/8, 127.0.0.1",
        drain_s=1,
    ) as started:
        yield started


@pytest.fixture
async def proxy(behind: Service) -> AsyncGenerator[httpx2.AsyncClient]:
    async with plain_http.AsyncClient(base_url=behind.url, timeout=5 * SECOND) as made:
        yield made


@pytest.mark.parametrize(
    ("named", "query", "merchant"),
    [
        ("42", "", "42"),
        ("42", "merchant_id=42", "42"),
        ("42,43", "merchant_id=43", "43"),
        (" 42 , 43 ", "merchant_id=42", "42"),
    ],
)
async def test_the_proxy_names_the_merchant(
    behind: Service, named: str, query: str, merchant: str
) -> None:
    async with open_stream(behind.url, query=query, headers={"X-Merchant-Id": named}) as stream:
        ready = await stream.next("ready")

    assert f'"merchant_id":"{merchant}"' in ready.data


@pytest.mark.parametrize(
    ("named", "query", "expected"),
    [
        (
            [],
            "merchant_id=42",
            (401, "unauthorized", "expected the proxy to set X-Merchant-Id, got none"),
        ),
        (
            ["42", "42"],
            "",
            (400, "malformed", "expected the header X-Merchant-Id once, got 2 times"),
        ),
        (
            ["42"],
            "merchant_id=43",
            (403, "forbidden", "expected a merchant that you may listen to, got '43'"),
        ),
        (
            ["42"],
            "merchant_id=42&merchant_id=44",
            (403, "forbidden", "expected a merchant that you may listen to, got '44'"),
        ),
    ],
)
async def test_a_missing_repeated_or_other_merchant_is_refused(
    proxy: httpx2.AsyncClient, named: list[str], query: str, expected: tuple[int, str, str]
) -> None:
    headers = [("X-Merchant-Id", each) for each in named]

    answer = await proxy.get(f"/events?{query}", headers=headers)

    assert refused(answer) == expected


@pytest.mark.parametrize("named", ["", "4 2", "42,", ",", "../42", "42;43", "*", "x" * 65])
async def test_a_header_that_names_no_merchant_is_malformed(
    proxy: httpx2.AsyncClient, named: str
) -> None:
    answer = await proxy.get("/events?merchant_id=42", headers={"X-Merchant-Id": named})

    status, error, detail = refused(answer)
    assert (status, error) == (400, "malformed")
    assert detail.startswith("X-Merchant-Id: merchant_id: expected 1 to 64 characters")


async def test_a_url_without_a_merchant_is_for_all_that_the_proxy_names(
    behind: Service, merchant: str
) -> None:
    headers = {"X-Merchant-Id": f"{merchant}-a, {merchant}-b"}
    async with open_stream(behind.url, query="", headers=headers) as stream:
        ready = await stream.next("ready")

    assert [*json.loads(ready.data)["merchants"]] == [f"{merchant}-a", f"{merchant}-b"]


async def test_the_header_of_an_untrusted_peer_is_refused(redis: Redis, tmp_path: Path) -> None:
    """Headers that claim another address do not help."""
    elsewhere = Service.start(
        tmp_path,
        redis.url,
        *("--subscribe-auth", "header"),
        trusted_proxies="10.0.0.0/8",
        drain_s=0,
    )
    headers = {"X-Merchant-Id": "42", "X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1"}
    async with plain_http.AsyncClient(base_url=elsewhere.url) as client:
        answer = await client.get("/events?merchant_id=42", headers=headers)
    elsewhere.stop()

    assert refused(answer) == (
        401,
        "unauthorized",
        "expected a request by way of a trusted proxy, got a direct one",
    )


async def test_a_peer_of_the_unix_socket_is_trusted(redis: Redis, tmp_path: Path) -> None:
    uds = tmp_path / "push.sock"
    started = Service.start(
        tmp_path, redis.url, *("--subscribe-auth", "header"), uds=uds, drain_s=0
    )
    async with plain_http.at_socket(uds) as client:
        named = await status_of(client, "merchant_id=42", X_Merchant_Id="42")
        unnamed = await client.get("/events?merchant_id=42")
    started.stop()

    assert named == 200
    assert unnamed.status_code == 401


@pytest.mark.nginx
async def test_the_merchants_own_backend_decides_behind_nginx(
    behind: Service, tmp_path: Path, merchant: str
) -> None:
    """With the shipped files, and whatever header the browser sends."""
    publisher = Publisher(behind.url)
    claimed = {"X-Merchant-Id": "43"}
    async with recording() as (backend, address):
        upstream = f"127.0.0.1:{behind.port}"
        with Nginx.start(tmp_path / "nginx", upstream, auth_backend=address) as nginx:
            backend.answer = yes(f"X-Merchant-Id: {merchant}, 44")
            async with open_stream(nginx.url, merchant, headers=claimed) as stream:
                await stream.next("refresh")
                entry_id = await publisher.notify(merchant)
                event = await stream.next("refresh", 2)
            async with nginx.client() as client:
                other = await client.get("/events?merchant_id=43", headers=claimed)
                backend.answer = yes()
                unnamed = await client.get("/events?merchant_id=43", headers=claimed)
    await publisher.close()

    assert event.id == entry_id
    assert (other.status_code, other.json()["error"]) == (403, "forbidden")
    assert (unnamed.status_code, unnamed.json()["error"]) == (401, "unauthorized")


async def test_the_header_is_ignored_in_other_modes(service: Service, merchant: str) -> None:
    async with open_stream(
        service.url, merchant, headers={"X-Merchant-Id": "43", "Authorization": "Bearer x"}
    ) as stream:
        ready = await stream.next("ready")

    assert f'"merchant_id":"{merchant}"' in ready.data
