from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from sse_push.demo.proxy import Proxy
from tests.harness import plain_http
from tests.harness.service import Service
from tests.harness.stream import Publisher
from tests.harness.waiting import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUIET = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy") / "mute"


@pytest.fixture
async def client(service: Service, switch: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    async with through(Proxy(service.url, switch, held_limit_bytes=100)) as made:
        yield made


def through(proxy: Proxy) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(Starlette(routes=proxy.routes()))
    return plain_http.AsyncClient(transport=transport, base_url="http://proxy.test")


@pytest.fixture
def mute(switch: Path) -> Generator[Path]:
    switch.touch()
    yield switch
    switch.unlink(missing_ok=True)


async def test_a_poll_and_a_refusal_pass_a_mute_proxy(
    client: httpx2.AsyncClient, publisher: Publisher, merchant: str, mute: Path
) -> None:
    position = await publisher.notify(merchant)
    poll = await client.get(f"/proxy/events?merchant_id={merchant}", headers=QUIET)
    refused = await client.get("/proxy/events?merchantId=42")

    assert poll.json()["merchants"][merchant]["id"] == position
    assert int(poll.headers["retry-after"]) > 0
    assert (refused.status_code, refused.json()["error"]) == (400, "malformed")
    assert mute.exists()


async def test_a_mute_proxy_ends_a_stream_of_which_it_holds_too_much(
    client: httpx2.AsyncClient, merchant: str, mute: Path
) -> None:
    answer = await client.get(f"/proxy/events?merchant_id={merchant}")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert mute.exists()


async def test_a_service_that_is_away_is_a_502(switch: Path) -> None:
    async with through(Proxy(f"http://127.0.0.1:{free_port()}", switch)) as client:
        answer = await client.get("/proxy/events?merchant_id=42")

    assert answer.status_code == 502
