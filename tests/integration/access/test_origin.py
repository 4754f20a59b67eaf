"""Pages of other origins: which may listen, which may read the answer, and none may notify."""

from __future__ import annotations

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.access import APP, refused
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import open_stream
from tests.harness.tokens import (
    token_of,
)


@pytest.mark.parametrize(
    "origin",
    [APP, "http://localhost:5173", "https://a.shop.test", "capacitor://localhost"],
)
@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_page_of_an_allowed_origin_listens_and_may_read(
    guarded: Service, origin: str, site: dict[str, str]
) -> None:
    async with open_stream(
        guarded.url, query=f"token={token_of()}", headers={"Origin": origin, **site}
    ) as stream:
        await stream.next("ready")

    assert stream.status == 200
    assert stream.headers["access-control-allow-origin"] == origin
    assert stream.headers["access-control-allow-credentials"] == "true"
    assert stream.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 401), ("token=x", 401), ("merchant_id=43&token={}", 403), ("token={0}&token={0}", 400)],
)
async def test_a_page_of_an_allowed_origin_may_read_its_refusal(
    client: httpx2.AsyncClient, query: str, status: int
) -> None:
    answer = await client.get(f"/events?{query.format(token_of())}", headers={"Origin": APP})

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://app.test.evil"},
        {"Origin": "http://app.test"},
        {"Origin": "https://APP.test"},
        {"Origin": "https://app.test:444"},
        {"Origin": "https://app.test/"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "*"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://self.test", "Host": "self.test", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://self.test:1", "Host": "self.test"},
        {"Origin": "https://self.test", "X-Forwarded-Host": "self.test"},
    ],
)
async def test_a_page_of_another_origin_is_refused_and_may_not_read_its_refusal(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.get(f"/events?token={token_of()}", headers=headers)

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert answer.headers["vary"] == "Origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_two_origins_are_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.get(
        f"/events?token={token_of()}", headers=[("Origin", APP), ("Origin", APP)]
    )

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://self.test", "Host": "self.test"},
        {"Origin": "http://self.test:8080", "Host": "SELF.test:8080"},
    ],
)
async def test_a_page_of_the_same_origin_may_listen(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    async with client.stream("GET", f"/events?token={token_of()}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_of_an_allowed_origin_is_answered(client: httpx2.AsyncClient) -> None:
    headers = {"Origin": APP, "Access-Control-Request-Method": "GET"}

    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET"
    assert (
        answer.headers["access-control-allow-headers"]
        == "Authorization, Last-Event-ID, Cache-Control"
    )
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"] == "Origin"


async def test_a_preflight_of_another_origin_is_refused(client: httpx2.AsyncClient) -> None:
    headers = {"Origin": "https://other.test", "Access-Control-Request-Method": "GET"}

    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert refused(answer)[:2] == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}])
async def test_options_without_a_preflight_are_405(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.options("/events?merchant_id=42", headers=headers)

    assert refused(answer) == (405, "method_not_allowed", "expected GET, HEAD, got OPTIONS")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("origin", [APP, "https://other.test", "null", ""])
async def test_a_page_may_not_notify_even_with_a_key(
    redis: Redis, client: httpx2.AsyncClient, merchant: str, origin: str
) -> None:
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}

    answer = await client.post("/notify", json={"merchant_id": merchant}, headers=headers)
    preflight = await client.options(
        "/notify", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )

    assert refused(answer) == (
        403,
        "origin_not_allowed",
        "expected a request of a backend, got one of a page, with Origin",
    )
    assert refused(preflight)[:2] == (405, "method_not_allowed")
    for each in (answer, preflight):
        assert not [name for name in each.headers if name.startswith("access-control")]
    assert redis.cli("XLEN", f"sse_push:{{{merchant}}}") == "0"


async def test_a_page_of_another_origin_may_not_listen_by_default(service: Service) -> None:
    async with plain_http.AsyncClient(base_url=service.url) as client:
        foreign = await client.get("/events?merchant_id=42", headers={"Origin": APP})
        site = await client.get("/events?merchant_id=42", headers={"Sec-Fetch-Site": "cross-site"})
        preflight = await client.options(
            "/events", headers={"Origin": APP, "Access-Control-Request-Method": "GET"}
        )

    for answer in (foreign, site, preflight):
        assert refused(answer)[:2] == (403, "origin_not_allowed")
        assert "vary" not in answer.headers
