"""The cinema over HTTP: all that its page and its crowd use."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urljoin

import click
import httpx2
import pytest
from starlette.applications import Starlette

from sse_push.cli.demo import demo as demo_command
from sse_push.demo.backend import Backend, client_folder
from sse_push.demo.cinema import Cinema
from sse_push.demo.crowd import CinemaTokens
from tests.harness import plain_http
from tests.harness.demo import Demo
from tests.harness.processes import descendants, is_running
from tests.harness.programs import Running
from tests.harness.stream import open_stream, read_to
from tests.harness.waiting import SECOND, START_S, STOP_S, free_port, until, wait_for


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with Demo.start(tmp_path_factory.mktemp("demo"), "--host", "0.0.0.0") as started:
        yield started.url
    assert f"http://0.0.0.0:{started.port}" in started.out


def is_listening(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def sell(url: str, seat: str, by: str = "tab", cinema: str = "roxy") -> httpx2.Response:
    return plain_http.post(f"{url}/seats/{seat}/sell", json={"merchant_id": cinema, "by": by})


def sold(url: str, cinema: str = "roxy") -> dict[str, str]:
    house = plain_http.get(f"{url}/seats", params={"merchant_id": cinema}).json()
    return {seat["seat"]: seat["by"] for seat in house["seats"] if seat["sold"]}


def test_the_page_and_all_that_it_loads_are_there(demo: str) -> None:
    page = plain_http.get(f"{demo}/").text
    loaded = set(re.findall(r'(?:href|src)="([^"?:]+)"', page))
    scripts = {path.name for path in (client_folder() / "demo").glob("*.js")}

    assert loaded == {"/client/index.js", "demo.css", *scripts}
    for url in loaded:
        assert plain_http.get(urljoin(f"{demo}/", url)).status_code == 200, url


def test_the_page_is_told_what_to_show(demo: str) -> None:
    about = plain_http.get(f"{demo}/about").json()

    assert abs(about.pop("now_ms") / 1000 - time.time()) < SECOND
    assert about == {"tokens": False, "crowd": 0}


def test_a_page_of_a_strangers_name_that_leads_here_is_refused(demo: str) -> None:
    stranger = {"Host": "evil.test", "Origin": "http://evil.test"}
    sale = {"merchant_id": "roxy", "by": "evil"}
    answers = [
        *(plain_http.get(f"{demo}{path}", headers=stranger) for path in ("/", "/seats", "/token")),
        plain_http.post(f"{demo}/seats/J1/sell", json=sale, headers=stranger),
    ]

    assert [answer.status_code for answer in answers] == [421] * 4
    assert "J1" not in sold(demo)


def test_a_house_has_the_seats_that_its_page_draws(demo: str) -> None:
    answer = plain_http.get(f"{demo}/seats", params={"merchant_id": "lumiere"})
    house = answer.json()

    assert answer.headers["cache-control"] == "no-store"
    assert house["rows"] * house["seats_per_row"] == len(house["seats"])
    assert house["seats"][0]["seat"] == "A1"
    assert {"merchant_id", "film", "starts"} < house.keys()


def test_a_seat_is_sold_once(demo: str) -> None:
    first, second = sell(demo, "B1", "one"), sell(demo, "B1", "two")

    assert first.status_code == 200
    assert second.status_code == 409
    assert second.json()["error"] == "sold"
    assert sold(demo)["B1"] == "one"


async def test_a_seat_with_several_buyers_at_once_is_sold_to_one_of_them(demo: str) -> None:
    async with plain_http.AsyncClient(base_url=demo) as client:
        for number in range(1, 13):
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"/seats/C{number}/sell", json={"merchant_id": "roxy", "by": f"tab-{by}"}
                    )
                    for by in range(4)
                )
            )

            assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


async def test_a_sale_reaches_the_streams_of_its_cinema_only(demo: str) -> None:
    async with open_stream(demo, "roxy") as roxy, open_stream(demo, "lumiere") as lumiere:
        await roxy.next("refresh")
        await lumiere.next("refresh")
        await asyncio.to_thread(sell, demo, "D1", "tab-1")
        await roxy.next("refresh", 2)
        answer = await asyncio.to_thread(sell, demo, "D2", "tab-1")
        event = await roxy.next("refresh", 3)
        await asyncio.to_thread(sell, demo, "D1", "tab-2", "lumiere")
        await lumiere.next("refresh", 2)

    assert json.loads(event.data) == {
        "merchant_id": "roxy",
        "topic": "seats",
        "data": answer.json(),
        "by": "tab-1",
    }
    assert len(roxy.refreshes) == 3
    assert len(lumiere.refreshes) == 2


def test_a_house_is_emptied(demo: str) -> None:
    sell(demo, "E1", cinema="lumiere")

    answer = plain_http.post(f"{demo}/seats/reset", json={"merchant_id": "lumiere", "by": "tab"})

    assert answer.status_code == 200
    assert sold(demo, "lumiere") == {}


AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/seats/A1/sell", b"[" * 4000, 400),
        ("/seats/A1/sell", b"[" * 5000, 413),
        ("/seats/Z99/sell", b'{"merchant_id": "roxy", "by": "tab"}', 404),
        ("/seats/A1/sell", b'{"merchant_id": "nowhere", "by": "tab"}', 404),
        ("/seats/A1/sell", b"{nonsense", 400),
        ("/seats/A1/sell", b'{"merchant_id": "roxy"}', 400),
        ("/seats/reset", b"[]", 400),
    ],
)
def test_a_malformed_request_is_refused(demo: str, path: str, body: bytes, status: int) -> None:
    answer = plain_http.post(f"{demo}{path}", content=body, headers=AS_JSON)

    assert answer.status_code == status
    assert "error" in answer.json()


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_page_of_another_site_sells_no_seat(demo: str, media_type: str | None) -> None:
    """These types, and none, are sent to any site without asking first."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    body = b'{"merchant_id": "astoria", "by": "tab"}'

    answer = plain_http.post(f"{demo}/seats/A1/sell", content=body, headers=headers)

    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported")


async def test_a_crowd_buys_and_leaves_with_the_demo(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("crowd")
    running = Running.start(folder, "demo", "--port", str(port), "--crowd", "5")
    try:
        await until(lambda: is_listening(url), "the demo", START_S)
        await until(lambda: bool(sold(url) or sold(url, "lumiere")), "a sale", START_S)
        others = descendants(running.process.pid)
        status = await asyncio.to_thread(running.press_ctrl_c)
    finally:
        running.kill()

    assert status == 0
    assert "valkey-server" in others.values()
    await until(lambda: not any(map(is_running, others)), "the end of all", STOP_S)
    assert "5 simulated buyers" in running.out
    assert f"{url}/" in running.out
    assert "Traceback" not in running.log


@pytest.mark.parametrize("buyers", ["-1", "10001", "many"])
def test_a_crowd_of_no_possible_size_is_a_usage_error(buyers: str) -> None:
    with pytest.raises(click.BadParameter):
        demo_command.make_context("demo", ["--crowd", buyers])


def test_a_crowd_ends_with_a_demo_that_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    started = Demo.start(tmp_path_factory.mktemp("killed"), "--crowd", "2")
    others = descendants(started.process.pid)

    started.kill()

    assert len(others) >= 2  # the server and the crowd
    wait_for(lambda: not any(map(is_running, others)), "the end of all", STOP_S)


@pytest.mark.parametrize(("status", "tries"), [(None, 3), (503, 3), (429, 3), (403, 1), (200, 1)])
async def test_a_sale_is_made_and_its_notification_repeated_while_that_may_help(
    tmp_path: Path, status: int | None, tries: int
) -> None:
    posted: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        posted.append(request.content)
        if status is None:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(status)

    cinema = Cinema(tmp_path / "cinema.sqlite3")
    service = httpx2.Client(base_url="http://push.test", transport=httpx2.MockTransport(answer))
    backend = Backend(cinema, service, None, waits_s=(0, 0, 0))
    async with plain_http.AsyncClient(
        transport=httpx2.ASGITransport(Starlette(routes=backend.routes())),
        base_url="http://cinema.test",
    ) as client:
        answered = await client.post("/seats/A1/sell", json={"merchant_id": "roxy", "by": "tab"})

    assert answered.status_code == 200
    assert cinema.sales("roxy").keys() == {"A1"}
    assert len(posted) == tries
    assert len(set(posted)) == 1


def test_only_the_newest_ended_sessions_are_remembered(tmp_path: Path) -> None:
    cinema = Cinema(tmp_path / "cinema.sqlite3")

    for number in range(3):
        cinema.end_session(f"s-{number}", at_most=2)

    assert [cinema.has_ended(f"s-{number}") for number in range(4)] == [False, True, True, False]


# -- the proxy


@pytest.fixture
def turn(demo: str) -> Generator[Callable[..., int]]:
    """Turn the switch of the proxy, and back in the end."""

    def switch(body: bytes, media_type: str | None = "application/json") -> int:
        headers = {} if media_type is None else {"Content-Type": media_type}
        return plain_http.post(f"{demo}/proxy", content=body, headers=headers).status_code

    yield switch
    assert switch(b'{"mute": false}') == 200


def test_the_switch_of_the_proxy_is_turned_by_the_page_alone(turn: Callable[..., int]) -> None:
    turned = [turn(b'{"mute": true}'), turn(b'{"mute": true}'), turn(b'{"mute": false}')]
    malformed = [turn(b'{"mute": 1}'), turn(b"[]"), turn(b'{"mute": true' + b" " * 64 + b"}")]
    of_another_site = [turn(b'{"mute": true}', "text/plain"), turn(b'{"mute": true}', None)]

    assert turned == [200] * 3
    assert malformed == [400, 400, 413]
    assert of_another_site == [415] * 2


async def test_a_mute_proxy_holds_the_events_of_a_stream(
    demo: str, turn: Callable[..., int]
) -> None:
    url, query = f"{demo}/proxy/events", {"merchant_id": "lumiere"}
    async with (
        asyncio.timeout(10 * SECOND),
        plain_http.AsyncClient() as client,
        client.stream("GET", url, params=query) as stream,
    ):
        events = stream.aiter_text()
        await read_to(events, '"connected"')
        turn(b'{"mute": true}')
        arriving = asyncio.ensure_future(anext(events))
        await asyncio.to_thread(sell, demo, "B1", cinema="lumiere")
        poll = await client.get(url, params=query, headers={"Accept": "application/json"})
        turn(b'{"mute": false}')
        await asyncio.to_thread(sell, demo, "B2", cinema="lumiere")
        held = await arriving

    assert "lumiere" in poll.json()["merchants"]
    assert '"B1"' in held
    assert '"B2"' in held, "B1 came alone: it was not held"


# -- with tokens


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    flags = ("--tokens", "--crowd", "3")
    with Demo.start(folder, *flags, heartbeat_s=1, allowed_hosts="cinema.test") as started:
        yield started.url
    assert f"--token \"$(curl -s '{started.url}/token?merchant_id=roxy')\"" in started.out


def test_a_demo_may_have_a_name(guarded: str) -> None:
    answers = [
        plain_http.get(guarded, headers={"Host": name}) for name in ("cinema.test", "evil.test")
    ]

    assert [answer.status_code for answer in answers] == [200, 421]


async def test_the_cinema_issues_tokens_and_the_service_requires_them(guarded: str) -> None:
    token = plain_http.get(f"{guarded}/token", params={"merchant_id": "roxy"})
    stranger = plain_http.get(f"{guarded}/token", params={"merchant_id": "42"})
    without = plain_http.get(f"{guarded}/events", params={"merchant_id": "roxy"})
    other = plain_http.get(
        f"{guarded}/events", params={"merchant_id": "lumiere", "token": token.text}
    )
    async with open_stream(guarded, query=f"merchant_id=roxy&token={token.text}") as stream:
        await stream.next("ready")
        await asyncio.to_thread(sell, guarded, "A1")
        await stream.next("refresh", 2)

    assert token.headers["cache-control"] == "no-store"
    assert stranger.status_code == 404
    assert (without.status_code, other.status_code) == (401, 403)


async def test_the_page_is_told_of_tokens_and_a_crowd(guarded: str) -> None:
    about = plain_http.get(f"{guarded}/about").json()

    assert (about["tokens"], about["crowd"]) == (True, 3)


async def test_a_session_that_logs_out_loses_its_stream_and_gets_no_token(guarded: str) -> None:
    def token(session: str) -> httpx2.Response:
        return plain_http.get(
            f"{guarded}/token", params={"merchant_id": "roxy", "session": session}
        )

    leaving, staying = token("s-1").text, token("s-2").text
    async with (
        open_stream(guarded, query=f"merchant_id=roxy&token={leaving}") as one,
        open_stream(guarded, query=f"merchant_id=roxy&token={staying}") as other,
    ):
        await one.next("ready")
        await other.next("ready")
        body = {"merchant_id": "roxy", "by": "s-1"}
        answer = await asyncio.to_thread(plain_http.post, f"{guarded}/logout", json=body)
        goodbye = await one.next("goodbye")
        await asyncio.to_thread(sell, guarded, "A2")
        await other.next("refresh", 2)

    assert answer.status_code == 200
    assert json.loads(goodbye.data) == {"reason": "revoked"}
    assert (token("s-1").status_code, token("s-2").status_code) == (401, 200)


async def test_the_crowd_listens_with_tokens(guarded: str) -> None:
    """The crowd's own client is used here: a refused buyer would give up and show nothing."""
    async with (
        plain_http.AsyncClient(auth=CinemaTokens()) as client,
        client.stream("GET", f"{guarded}/events?merchant_id=roxy") as answer,
    ):
        assert answer.status_code == 200
        assert answer.request.headers["authorization"].startswith("Bearer ey")


async def test_a_demo_without_tokens_issues_none_and_requires_none(demo: str) -> None:
    async with (
        plain_http.AsyncClient(auth=CinemaTokens()) as client,
        client.stream("GET", f"{demo}/events?merchant_id=roxy") as answer,
    ):
        token = await client.get(f"{demo}/token", params={"merchant_id": "roxy"})

    assert (token.status_code, token.content) == (204, b"")
    assert answer.status_code == 200
    assert "authorization" not in answer.request.headers
