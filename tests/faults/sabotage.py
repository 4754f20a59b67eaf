"""The service, with routes by which a test breaks one of its workers from inside.

``python -m tests.faults.sabotage serve …`` is ``sse-push serve …`` with routes for what no signal
can do: block the event loop, make the tail deaf, let it die. The file ``start`` in its
``run_folder`` hinders the start of each worker: it takes as long as the file says, or fails.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Never

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from sse_push.errors import ConfigError
from sse_push.runtime.logs import configure_logging
from sse_push.server import serve
from sse_push.settings import Settings
from sse_push.stream import announcing, rounds
from sse_push.stream.address import Address
from sse_push.stream.connection import Announcement, Connection
from sse_push.stream.opening import open_connection
from tests.harness import plain_http
from tests.harness.keys import REVOCATIONS_KEY
from tests.harness.processes import frozen

START = "start"
FAILS = "fails"


async def find(_request: Request) -> Response:
    """Do no harm."""
    return JSONResponse({"pid": os.getpid()})


async def block(request: Request) -> Response:
    """Do nothing else for a while, as a bug or a slow regular expression would."""
    time.sleep(float(request.query_params["seconds"]))
    return JSONResponse({})


async def deafen(request: Request) -> Response:
    """Let Redis announce nothing more on the present connection."""
    await request.state.follower._pipeline.ask(("CLIENT", "TRACKING", "OFF"))
    return JSONResponse({})


async def deafen_for_good(request: Request) -> Response:
    """Let it announce nothing on any later connection either."""

    async def forget_to_track(
        address: Address, name: str, reply_limit_bytes: int, **_: bool
    ) -> Connection:
        return await open_connection(address, name, reply_limit_bytes, tracks=False)

    setattr(announcing, "open_connection", forget_to_track)  # noqa: B010 (no export of the module's)
    return await deafen(request)


async def kill_tail(request: Request) -> Response:
    """Raise in the tail, at the next announcement."""

    def fail(_announcement: object) -> Never:
        raise RuntimeError("sabotage")

    request.state.follower._pipeline._on_announcement = fail
    return JSONResponse({})


async def miss_changes(request: Request) -> Response:
    """Hear of no change of a merchant's stream; the probe and the revocations are well.

    The sweep alone finds changes then, in rounds of ``sweep_s``.
    """
    follower = request.state.follower
    hear, own = follower._pipeline._on_announcement, (follower.probe.key, REVOCATIONS_KEY.encode())

    def hear_of_own(announcement: Announcement) -> None:
        keys = [key for key in announcement.keys or () if key in own]
        if keys:
            hear(Announcement(keys))

    follower._pipeline._on_announcement = hear_of_own
    rounds.SWEEP_S["tracking"] = float(request.query_params["sweep_s"])
    return JSONResponse({})


def routes() -> Sequence[BaseRoute]:
    """Return the routes of sabotage; each answers 409 in the wrong worker."""

    def door(name: str, action: object) -> BaseRoute:
        async def endpoint(request: Request) -> Response:
            if int(request.query_params["pid"]) != os.getpid():
                return JSONResponse({"pid": os.getpid()}, 409)
            answer: Response = await action(request)  # type: ignore[operator]  # one of the above
            return answer

        return Route(f"/sabotage/{name}", endpoint, methods=["POST"])

    return [
        door("find", find),
        door("block", block),
        door("deafen", deafen),
        door("deafen_for_good", deafen_for_good),
        door("kill_tail", kill_tail),
        door("miss_changes", miss_changes),
    ]


def sabotage(url: str, name: str, pid: int, **query: str) -> None:
    """Ask a worker for a route, on a connection that this worker has accepted."""
    with _connection_to(url, pid) as client:
        try:
            answer = client.post(f"/sabotage/{name}", params={"pid": str(pid), **query}, timeout=2)
        except httpx2.TransportError:
            if name == "block":
                return  # it does not answer any more
            raise
    assert answer.status_code == 200, answer.text


@contextmanager
def _connection_to(url: str, pid: int) -> Generator[plain_http.Client]:
    """Connect to a worker: the others, once they are known, are frozen until it has answered.

    Any worker may accept a connection, and on a busy machine the same one 200 times in a row.
    """
    others: set[int] = set()
    while True:
        with plain_http.Client(base_url=url, trust_env=False) as client:
            with ExitStack() as frozen_ones:
                for other in others:
                    frozen_ones.enter_context(frozen(other))
                found = client.post("/sabotage/find", params={"pid": str(pid)}).json()["pid"]
            if found == pid:
                yield client
                return
        assert found not in others, f"expected worker {pid}, got {found}, which is frozen"
        others.add(found)


def main() -> int:
    """Serve with the flags that the harness gives."""
    flags = sys.argv[2:]
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    settings = Settings.load(**dict(zip(names, flags[1::2], strict=True)))
    configure_logging(settings.log_level, settings.log_format)

    def hindered() -> Sequence[BaseRoute]:
        if settings.run_folder is not None:
            hinder(settings.run_folder / START)
        return routes()

    return serve(settings, hindered)


def hinder(path: Path) -> None:
    """Let this start take some seconds, or fail, as a file says."""
    if path.exists():
        how = path.read_text()
        if how == FAILS:
            raise ConfigError("expected no sabotage, got some")
        time.sleep(float(how))


if __name__ == "__main__":
    sys.exit(main())
