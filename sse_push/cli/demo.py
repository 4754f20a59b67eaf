"""``sse-push demo``: the settings of a demo."""

from __future__ import annotations

import contextlib

import click

from sse_push.cli.flags import warn_of_secrets
from sse_push.runtime.variables import HOST, PORT

_CROWD_MAX = 10_000
"""At most this many buyers: one process simulates them all, with a socket each."""

_TOKEN_EXPIRING_S = 15.0
"""How long before its end a token is renewed: a visitor sees that three times in two minutes."""


@click.command()
@click.option("--host", default=HOST, show_default=True, help="address to listen on")
@click.option("--port", default=PORT, show_default=True, help="port to listen on; 0: any free port")
@click.option(
    "--crowd",
    default=0,
    type=click.IntRange(0, _CROWD_MAX),
    metavar="N",
    show_default=True,
    help="simulated buyers",
)
@click.option("--redis-url", help="Redis to use, instead of a private valkey-server")
@click.option("--tokens", is_flag=True, help="require tokens, which the cinema's backend issues")
def demo(*, host: str, port: int, crowd: int, redis_url: str | None, tokens: bool) -> int:
    """Run a small cinema, to try the service out.

    Its page has two browsers side by side. Sell a seat in one: between them you see the POST, the
    refresh, and how long each took. Everything is on one port, and anyone who can reach the port
    may use it.

    \b
    Example:
      sse-push demo --crowd 200
    """
    from secrets import token_hex

    from sse_push.demo import run_demo
    from sse_push.runtime.embedded import embedded_server
    from sse_push.runtime.logs import configure_logging
    from sse_push.settings import Settings

    token_key = token_hex(32) if tokens else None
    with contextlib.nullcontext(redis_url) if redis_url else embedded_server() as url:
        settings = Settings.load(
            host=host,
            port=port,
            redis_url=url,
            subscribe_auth="token" if tokens else "none",
            token_keys=token_key,
            notify_keys="none",
            drain_s=5.0,
            token_expiring_s=_TOKEN_EXPIRING_S,
        )
        if settings.allowed_hosts is None:
            # Wherever the demo listens, the page of a stranger's site could sell seats.
            settings = settings.model_copy(update={"allowed_hosts": ()})
        configure_logging(settings.log_level, settings.log_format)
        warn_of_secrets({"redis_url": redis_url})
        return run_demo(settings, token_key, crowd, click.echo)
