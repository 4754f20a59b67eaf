"""Put the demo together: the service, the cinema's backend and page, and the crowd."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.routing import BaseRoute

from sse_push.demo.backend import Backend
from sse_push.demo.cinema import Cinema
from sse_push.demo.crowd import run_crowd
from sse_push.server import serve
from sse_push.settings import Settings


def run_demo(
    settings: Settings, token_key: str | None, buyers: int, say: Callable[[str], object]
) -> int:
    """Run it until a signal; ``say`` is told what to open.

    With ``token_key`` the service asks for tokens, and the cinema signs them.
    """
    url = ""

    def on_bound(address: str) -> None:
        nonlocal url
        url = address
        _invite(url, buyers, say, has_tokens=token_key is not None)
        if buyers:
            crowd = multiprocessing.get_context("spawn").Process(
                target=run_crowd, args=(url, buyers), name="crowd", daemon=True
            )
            crowd.start()

    with tempfile.TemporaryDirectory(prefix="sse_push-demo-") as folder:
        cinema = Cinema(Path(folder) / "cinema.sqlite3")

        def routes() -> Sequence[BaseRoute]:
            return Backend(cinema, url, token_key).routes()

        return serve(settings, routes, on_bound)


def _invite(url: str, buyers: int, say: Callable[[str], object], *, has_tokens: bool) -> None:
    say("")
    say(f"  The cinema is open:  {url}/")
    say("  Open it in two windows side by side, and sell a seat in one.")
    if buyers:
        say(f"  {buyers} simulated buyers are on their way.")
    say("")
    token = f""" --token "$(curl -s '{url}/token?merchant_id=roxy')\"""" if has_tokens else ""
    say(f"  From a terminal:     sse-push tail roxy --url {url}{token}")
    say("  Ctrl-C ends it.")
    say("")
