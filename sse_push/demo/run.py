"""Put the demo together: the service, the cinema's backend and page, a proxy, and the crowd."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence

import httpx2
from starlette.routing import BaseRoute

from sse_push.demo.backend import Backend
from sse_push.demo.cinema import Cinema
from sse_push.demo.crowd import run_crowd
from sse_push.demo.proxy import Proxy
from sse_push.runtime.run_folder import run_folder
from sse_push.server import serve
from sse_push.settings import Settings

_TIMEOUT_S = 5.0
"""How long the cinema's backend waits for an answer of the service."""


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
            service = httpx2.Client(base_url=url, timeout=_TIMEOUT_S)
            backend = Backend(cinema, service, token_key, buyers)
            # First: the backend has the files of the page for all other paths.
            return [*Proxy(url, folder / "mute").routes(), *backend.routes()]

        return serve(settings, routes, on_bound)


def _print_invitation(
    url: str, buyers: int, print_line: Callable[[str], object], *, has_tokens: bool
) -> None:
    lines = [
        "",
        f"  sse-push demo:  {url}/",
        "",
        "  Open it: two browsers look at one cinema. Each seat that one of them sells is a",
        "  POST /notify, then a refresh, then a fetch by the other, with the milliseconds.",
    ]
    if buyers:
        lines.append(
            f"  {buyers} simulated buyers are on their way; the page counts who is reached."
        )
    if has_tokens:
        lines.append("  Each browser has a token: watch it expire and be renewed, or revoke it.")
    token = f""" --token "$(curl -s '{url}/token?merchant_id=roxy')\"""" if has_tokens else ""
    lines += [
        "",
        f"  From a terminal:  sse-push tail roxy --url {url}{token}",
        "  Ctrl-C ends it.",
        "",
    ]
    for line in lines:
        print_line(line)
