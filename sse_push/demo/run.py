"""Put the demo together: the service, the cinema's backend and page, and the crowd."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute

from sse_push.demo.backend import Backend
from sse_push.demo.cinema import Cinema
from sse_push.demo.crowd import run_crowd
from sse_push.runtime.run_folder import run_folder
from sse_push.server import serve
from sse_push.settings import Settings


def run_demo(
    settings: Settings, token_key: str | None, buyers: int, print_line: Callable[[str], object]
) -> int:
    """Run the demo until a signal, and ``print_line`` how to open it.

    With ``token_key`` the service requires tokens, and the cinema's backend signs them.
    """
    url = ""

    def on_bound(address: str) -> None:
        nonlocal url
        url = address
        _print_invitation(url, buyers, print_line, has_tokens=token_key is not None)
        if buyers:
            crowd = multiprocessing.get_context("spawn").Process(
                target=run_crowd, args=(url, buyers), name="crowd", daemon=True
            )
            crowd.start()

    with run_folder("sse_push-demo") as folder:
        cinema = Cinema(folder / "cinema.sqlite3")

        def routes() -> Sequence[BaseRoute]:
            return Backend(cinema, url, token_key).routes()

        return serve(settings, routes, on_bound)


def _print_invitation(
    url: str, buyers: int, print_line: Callable[[str], object], *, has_tokens: bool
) -> None:
    print_line("")
    print_line(f"  The cinema is open:  {url}/")
    print_line("  Open it in two windows side by side, and sell a seat in one.")
    if buyers:
        print_line(f"  {buyers} simulated buyers are on their way.")
    print_line("")
    token = f""" --token "$(curl -s '{url}/token?merchant_id=roxy')\"""" if has_tokens else ""
    print_line(f"  From a terminal:     sse-push tail roxy --url {url}{token}")
    print_line("  Ctrl-C ends it.")
    print_line("")
