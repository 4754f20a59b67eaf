"""The middleware of ``/events``; over real sockets: ``tests/integration/http/test_app.py``."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from sse_push.access.hosts import Hosts
from sse_push.access.origin import Origins
from sse_push.access.room import Place, Room
from sse_push.errors import NotNow, RefusalReason
from sse_push.http.app import EventsMiddleware
from sse_push.http.endpoints import PLACE_SCOPE_KEY
from sse_push.runtime.refusals import Refusals
from sse_push.runtime.uvicorn import SEND_SCOPE_KEY

SCOPE = {"type": "http", "path": "/events", "headers": [(b"origin", b"https://app.test")]}


class Inner(Starlette):
    """The application behind the middleware: reserves the place, if there is one, and answers."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI)
        self.scopes.append(scope)
        if PLACE_SCOPE_KEY in scope:
            place: Place = scope[PLACE_SCOPE_KEY]
            place.reserve(("42",), None)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.error is not None:
            raise self.error


class Client:
    """One client of the middleware, with the messages it was sent and the places taken then."""

    def __init__(self, inner: Inner, hosts: tuple[str, ...] = ("*",)) -> None:
        self.room = Room(
            max_connections=1, max_connections_per_merchant=0, max_connections_per_address=0
        )
        self.app = EventsMiddleware(inner, Origins(["https://app.test"]), self.room, Hosts(hosts))
        self.messages: list[Message] = []
        self.places: list[int] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        self.places.append(len(self.room))

    async def receive(self) -> Message:
        raise AssertionError("nothing is received")

    async def ask(self, **scope: object) -> None:
        await self.app({**SCOPE, **scope}, self.receive, self.send)


async def test_a_request_for_events_has_a_place_until_its_end() -> None:
    client = Client(Inner())

    await client.ask()

    assert client.places == [1]
    assert len(client.room) == 0


async def test_a_request_that_fails_releases_its_place() -> None:
    client = Client(Inner(RuntimeError("broken")))

    with pytest.raises(RuntimeError):
        await client.ask()

    assert client.places == [1]
    assert len(client.room) == 0


async def test_a_request_without_room_releases_nothing() -> None:
    client = Client(Inner())
    with client.room.place() as other:
        other.reserve(("43",), None)

        with pytest.raises(NotNow):
            await client.ask()

        assert len(client.room) == 1


async def test_a_request_for_events_carries_the_servers_own_send_and_gets_cors_headers() -> None:
    inner = Inner()
    client = Client(inner)

    await client.ask()

    assert inner.scopes[0][SEND_SCOPE_KEY] == client.send
    assert (b"access-control-allow-origin", b"https://app.test") in client.messages[0]["headers"]


@pytest.mark.parametrize("scope", [{"path": "/notify"}, {"type": "lifespan"}])
async def test_another_request_passes_through(scope: dict[str, object]) -> None:
    inner = Inner()
    client = Client(inner)

    await client.ask(**scope)

    assert inner.scopes == [{**SCOPE, **scope}]
    assert client.messages[0]["headers"] == []


@pytest.mark.parametrize("path", ["/events", "/notify", "/", "/metrics\n"])
@pytest.mark.parametrize("kind", ["http", "lifespan"])
async def test_a_request_for_another_host_reaches_no_route(path: str, kind: str) -> None:
    client = Client(Inner(), hosts=())
    refusals = Refusals()

    await client.ask(
        type=kind, path=path, headers=[(b"host", b"evil.test")], state={"refusals": refusals}
    )

    is_refused = kind == "http"
    assert client.messages[0]["status"] == (421 if is_refused else 200)
    assert refusals.reasons[RefusalReason.HOST_NOT_ALLOWED] == is_refused
    assert client.places[0] == 0


async def test_a_request_for_an_allowed_host_reaches_its_route() -> None:
    client = Client(Inner(), hosts=("push.test",))

    await client.ask(headers=[(b"host", b"push.test:8000")])

    assert client.messages[0]["status"] == 200
