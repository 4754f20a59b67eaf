"""Keys, paths, methods and queries; health and readiness."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.harness import plain_http
from tests.harness.in_process import serving_here
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher
from tests.harness.waiting import SECOND
from tests.integration.http.stored import MERCHANT_ID, appends

OTHER_KEY = "another-key-of-the-tests-9876fedc5432ba10"


# -- keys


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (None, "expected the header Authorization: Bearer <key>"),
        ("", "expected the header Authorization: Bearer <key>"),
        ("Bearer", "expected the header Authorization: Bearer <key>"),
        (KEY, "expected the header Authorization: Bearer <key>"),
        (f"Basic {KEY}", "expected the header Authorization: Bearer <key>"),
        (f"Bearer {KEY}x", "expected a key of notify_keys, got another one"),
        (f"Bearer {KEY[:-1]}", "expected a key of notify_keys, got another one"),
        (f"Bearer {KEY},{KEY}", "expected a key of notify_keys, got another one"),
        ("Bearer none", "expected a key of notify_keys, got another one"),
        ("Bearer schlüssel", "expected a key of notify_keys, got another one"),
    ],
)
async def test_a_request_without_a_key_of_the_service_is_refused_unread(
    redis: Redis, service: Service, authorization: str | None, detail: str
) -> None:
    before = appends(redis)
    headers = httpx2.Headers()
    if authorization is not None:
        headers = httpx2.Headers({b"Authorization": authorization.encode("latin-1")})

    async with plain_http.AsyncClient() as client:
        answer = await client.post(f"{service.url}/notify", content=b"{nonsense", headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized", "detail": detail})
    assert answer.headers["www-authenticate"] == "Bearer"
    assert appends(redis) == before


async def test_the_scheme_may_be_of_any_case(service: Service, merchant: str) -> None:
    """The name of a scheme is case-insensitive: RFC 9110, section 11.1."""
    async with plain_http.AsyncClient() as client:
        answer = await client.post(
            f"{service.url}/notify",
            json={"merchant_id": merchant},
            headers={"Authorization": f"bearer {KEY}"},
        )

    assert answer.status_code == 200


# -- paths, methods, queries


async def test_another_method_is_405_with_those_that_are_allowed(
    service: Service, publisher: Publisher
) -> None:
    to_notify = await publisher.client.get("/notify")
    to_events = await publisher.client.post("/events?merchant_id=42")

    assert (to_notify.status_code, to_notify.headers["allow"]) == (405, "POST")
    assert to_notify.json() == {
        "error": "method_not_allowed",
        "detail": "expected POST, got GET",
    }
    assert to_events.status_code == 405
    assert to_events.headers["allow"] == "GET, HEAD"
    assert to_events.json()["error"] == "method_not_allowed"
    service.assert_no_errors()


async def test_another_path_is_404_in_json(publisher: Publisher) -> None:
    answer = await publisher.client.get("/event?merchant_id=42")

    assert (answer.status_code, answer.json()) == (
        404,
        {
            "error": "not_found",
            "detail": "expected /events, /notify, /revoke, /healthz, /readyz, /metrics or "
            "/openapi.json, got another path",
        },
    )


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("", f"{MERCHANT_ID} none"),
        ("merchant_id=", f"{MERCHANT_ID} '' (string)"),
        ("merchantId=42", "expected merchant_id, got merchantId: did you mean merchant_id?"),
        ("merchant_id=42%0d%0aX-Header:%201", f"{MERCHANT_ID} '42\\r\\nX-Header: 1' (string)"),
        ("merchant_id=42%00", f"{MERCHANT_ID} '42\\x00' (string)"),
        ("merchant_id=..%2f42", f"{MERCHANT_ID} '../42' (string)"),
        ("merchant_id=%ff", f"{MERCHANT_ID} '\\ufffd' (string)"),
        ("merchant_id=" + "x" * 65, f"{MERCHANT_ID} '{'x' * 65}' (string)"),
        (
            "merchant_id=42&merchant_id=4%202",
            f"{MERCHANT_ID} '4 2' (string)",
        ),
    ],
)
async def test_an_event_stream_without_a_valid_merchant_is_400(
    service: Service, publisher: Publisher, query: str, detail: str
) -> None:
    answer = await publisher.client.get(f"/events?{query}")

    assert (answer.status_code, answer.json()) == (400, {"error": "malformed", "detail": detail})
    service.assert_no_errors()


@pytest.mark.parametrize("path", ["/notify", "/revoke"])
async def test_a_parameter_in_the_url_of_a_backend_is_400_and_stores_nothing(
    publisher: Publisher, redis: Redis, merchant: str, path: str
) -> None:
    answer = await publisher.client.post(
        f"{path}?merchantId={merchant}",
        json={"merchant_id": merchant},
        headers={"Authorization": f"Bearer {KEY}"},
    )

    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "expected all fields in the body, got 'merchantId' in the URL: did you mean merchant_id?",
    )
    assert redis.cli("EXISTS", f"sse_push:{{{merchant}}}") == "0"


async def test_a_head_request_for_events_is_answered_at_once(publisher: Publisher) -> None:
    answer = await publisher.client.head("/events?merchant_id=42", timeout=SECOND)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.content == b""


async def test_a_new_process_is_alive_and_ready(publisher: Publisher) -> None:
    alive = await publisher.client.get("/healthz")
    ready = await publisher.client.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"alive": True})
    assert ready.status_code == 200
    age_s = ready.json().pop("probe_age_s")
    assert {**ready.json(), "probe_age_s": 0} == {
        "ready": True,
        "leaving": False,
        "draining": False,
        "workers": {"expected": 1, "alive": 1},
        "probe_age_s": 0,
        "primaries_away": [],
    }
    assert 0 <= age_s <= 2 * SECOND


async def test_readiness_counts_the_workers(workers: Service) -> None:
    async with plain_http.AsyncClient() as client:
        ready = await client.get(f"{workers.url}/readyz")

    assert ready.json()["workers"] == {"expected": 2, "alive": 2}


@pytest.mark.parametrize("path", ["/notify", "/revoke"])
async def test_a_backend_needs_no_key_where_there_are_none(
    redis: Redis, tmp_path: Path, merchant: str, path: str
) -> None:
    async with (
        serving_here(redis.url, tmp_path) as url,
        plain_http.AsyncClient(base_url=url, timeout=5 * SECOND) as client,
    ):
        answer = await client.post(path, json={"merchant_id": merchant})

    assert answer.status_code == 200
    assert list(answer.json()) == ["id"]
