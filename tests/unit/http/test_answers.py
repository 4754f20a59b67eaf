from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from types import MappingProxyType

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sse_push.access.gate import Gate
from sse_push.access.proxies import Proxies
from sse_push.errors import (
    EndReason,
    Forbidden,
    InvalidMerchantId,
    NotNow,
    Outcome,
    RefusalReason,
    RequestError,
    StreamUnavailable,
    TooManyNotifications,
    Unauthorized,
)
from sse_push.http import paths
from sse_push.http.answers import (
    EXCEPTION_HANDLERS,
    KEY_SCOPE_KEY,
    asks_to_poll,
    body_of,
    not_all_stored,
)
from sse_push.runtime.refusals import Refusals
from sse_push.runtime.uvicorn import REFUSED_KEY

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class SoftAnswers:
    """The event streams of a process, as far as a handler calls them."""

    def soft_answer(self, reason: EndReason) -> Response:
        return Response(f"soft {reason.value}")

    def jittered_poll_s(self) -> int:
        return 13


class Service:
    """An application whose one endpoint raises, and its count of refusals."""

    key: str | None = None

    def __init__(self, error: Exception, *, is_refused: bool = False) -> None:
        self.refusals = Refusals()
        self.is_refused = is_refused

        async def fail(_request: Request) -> Response:
            raise error

        self.app = Starlette(
            routes=[
                Route("/fail", fail),
                Route("/other", fail, methods=["PUT", "POST"]),
                Route(paths.EVENTS, fail),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxies = Proxies([ipaddress.ip_network("127.0.0.1")], is_unix_socket=False)
        scope["state"] = {
            "refusals": self.refusals,
            "event_streams": SoftAnswers(),
            "gate": Gate("none", proxies=proxies, max_merchants=16),
        }
        if self.key is not None:
            scope[KEY_SCOPE_KEY] = self.key
        if self.is_refused:
            scope[REFUSED_KEY] = True
        await self.app(scope, receive, send)

    async def get(
        self, path: str = "/fail", headers: Mapping[str, str] = NO_HEADERS
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(self, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            del client.headers["accept"]
            return await client.get(path, headers=headers)

    def counted(self) -> dict[str, int]:
        return {code.value: count for code, count in self.refusals.codes.items() if count}


@pytest.mark.parametrize(
    ("error", "status", "body", "header"),
    [
        (InvalidMerchantId("expected a"), 400, {"error": "malformed"}, None),
        (
            Unauthorized("expected a"),
            401,
            {"error": "unauthorized"},
            ("www-authenticate", "Bearer"),
        ),
        (
            Unauthorized.invalid_token("expected a", RefusalReason.TOKEN_EXPIRED),
            401,
            {"error": "unauthorized"},
            ("www-authenticate", 'Bearer error="invalid_token"'),
        ),
        (Forbidden("expected a"), 403, {"error": "forbidden"}, None),
        (
            TooManyNotifications("expected a", 7),
            429,
            {"error": "rate_limited"},
            ("retry-after", "7"),
        ),
        (
            StreamUnavailable("expected a", "unknown"),
            503,
            {"error": "unavailable", "outcome": "unknown"},
            ("retry-after", "2"),
        ),
    ],
)
async def test_a_refused_request_is_answered_by_its_refusal_and_counted(
    error: RequestError, status: int, body: dict[str, str], header: tuple[str, str] | None
) -> None:
    service = Service(error)

    answer = await service.get()

    assert (answer.status_code, answer.json()) == (status, {**body, "detail": "expected a"})
    assert {name: value for name, value in answer.headers.items() if name[:7] != "content"} == (
        {} if header is None else dict([header])
    )
    assert service.counted() == {body["error"]: 1}


# -- a client that is asked to come back later


@pytest.mark.parametrize("accept", [None, "*/*", "Text/Event-Stream", "text/html, */*;q=0.1"])
async def test_a_client_that_accepts_an_event_stream_gets_a_soft_answer(accept: str | None) -> None:
    service = Service(NotNow(EndReason.FULL))

    answer = await service.get(headers={} if accept is None else {"Accept": accept})

    assert (answer.status_code, answer.text) == (200, "soft full")
    assert service.counted() == {}


async def test_a_client_without_event_streams_that_is_not_served_gets_503() -> None:
    service = Service(NotNow(EndReason.FULL))

    answer = await service.get(headers={"Accept": "application/json"})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "13")
    assert answer.json() == {"error": "unavailable", "detail": "full"}
    assert service.counted() == {"unavailable": 1}


@pytest.mark.parametrize(
    ("accept", "polls"),
    [
        ("application/json", True),
        ("Application/JSON, text/plain", True),
        ("application/json, text/plain, */*", False),
        ("application/json, text/event-stream", False),
        ("text/html", False),
        ("*/*", False),
        (None, False),
    ],
)
def test_a_client_that_accepts_json_and_no_event_stream_polls(
    accept: str | None, *, polls: bool
) -> None:
    assert asks_to_poll(Headers({} if accept is None else {"Accept": accept})) is polls


async def test_a_soft_answer_is_a_refusal_without_a_code_and_that_of_a_deploy_is_none() -> None:
    full, stopping = Service(NotNow(EndReason.FULL)), Service(NotNow(EndReason.SERVER_STOPPING))

    await full.get()
    await stopping.get()

    assert full.refusals.reasons[RefusalReason.FULL] == 1
    assert not any(stopping.refusals.reasons.values())


# -- whom or what the log names


@pytest.mark.parametrize(
    ("path", "headers", "error", "named"),
    [
        ("/events?merchant_id=42", {}, Forbidden("", who="merchant 7"), "/events merchant 7"),
        ("/events?merchant_id=42", {}, Unauthorized(""), "/events merchant 42"),
        ("/events?merchant_id=a/b", {}, Unauthorized(""), "/events address unknown"),
        ("/fail", {"X-Forwarded-For": "2001:db8::5"}, Unauthorized(""), "- address 2001:db8::/64"),
    ],
)
async def test_a_refusal_is_logged_with_whom_or_what_it_is_about(
    path: str,
    headers: Mapping[str, str],
    error: Exception,
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await Service(error).get(path, headers)

    path, _, who = named.partition(" ")
    assert f" path={path} who={who} setting=" in caplog.text


async def test_a_refusal_of_a_backend_names_the_place_of_its_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(InvalidMerchantId("expected a"))
    service.key = "key 2"

    await service.get()

    assert " who=key 2 setting=- count=1" in caplog.text


# -- what Starlette raises


async def test_another_path_is_answered_with_all_paths() -> None:
    service = Service(Forbidden(""))

    answer = await service.get("/nowhere")

    assert answer.status_code == 404
    assert answer.json() == {
        "error": "not_found",
        "detail": "expected /fail, /other or /events, got another path",
    }
    assert service.counted() == {"not_found": 1}


async def test_another_method_is_answered_with_all_methods_in_order() -> None:
    service = Service(Forbidden(""))

    answer = await service.get("/other")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT")
    assert answer.json() == {
        "error": "method_not_allowed",
        "detail": "expected POST, PUT, got GET",
    }
    assert service.counted() == {"method_not_allowed": 1}


@pytest.mark.parametrize(("status", "code"), [(400, "malformed"), (404, "not_found")])
async def test_an_exception_of_a_further_route_keeps_its_text(status: int, code: str) -> None:
    answer = await Service(HTTPException(status, "there is no seat")).get()

    assert (answer.status_code, answer.json()) == (
        status,
        {"error": code, "detail": "there is no seat"},
    )


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_body_without_its_end_is_counted_once(*, is_refused: bool) -> None:
    service = Service(ClientDisconnect(), is_refused=is_refused)

    answer = await service.get()

    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")
    assert service.counted() == ({} if is_refused else {"malformed": 1})


# -- arrays


def test_a_refused_item_has_the_body_of_a_refused_request() -> None:
    assert body_of(Forbidden("expected a")) == {"error": "forbidden", "detail": "expected a"}
    assert body_of(StreamUnavailable("expected a"))["outcome"] == "not_published"


@pytest.mark.parametrize(
    ("outcomes", "outcome"),
    [
        (["not_published"], "not_published"),
        (["not_published", "unknown", "not_published"], "unknown"),
    ],
)
def test_an_array_has_an_unknown_outcome_if_any_of_its_items_has(
    outcomes: list[Outcome], outcome: Outcome
) -> None:
    failures = [
        StreamUnavailable(f"expected {number}", each) for number, each in enumerate(outcomes)
    ]
    results: list[Mapping[str, object]] = [{"id": "1-1"}, *({"error": ""} for _ in failures)]

    answer = not_all_stored(failures, results)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert json.loads(bytes(answer.body)) == {
        "error": "unavailable",
        "detail": f"{len(failures)} of {len(results)} not stored: expected 0",
        "outcome": outcome,
        "results": results,
    }


async def test_an_error_that_nobody_has_foreseen_is_answered_in_json_and_counted() -> None:
    service = Service(ZeroDivisionError("a secret"))

    answer = await service.get()

    assert answer.status_code == 500
    assert answer.json() == {
        "error": "internal",
        "detail": "expected an answer, got an error, which the log has",
    }
    assert service.counted() == {"internal": 1}
