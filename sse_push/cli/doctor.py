"""``sse-push doctor``: what is wrong on the way from a browser to the service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from sse_push.cli.flags import client_env_file_option, json_option, key_option, token_option

if TYPE_CHECKING:
    from sse_push.doctor import Target

_HEADER_TEXT = re.compile(r"[\x20-\x7e]+")
_COOKIE = re.compile(r"[^\s=;,]+=[\x21-\x7e]*")


@click.command()
@click.argument("url", metavar="URL")
@click.option("--merchant-id", metavar="ID", help="merchant to listen to  [default: the token's]")
@token_option
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="cookie of a page")
@click.option("--origin", help="origin of the pages, if it is another one: https://app.example")
@click.option("--notify-url", metavar="URL", help="URL for backends; with it, events are timed")
@key_option
@client_env_file_option
@click.option("--ca-file", metavar="FILE", help="certificates to believe, in PEM")
@click.option(
    "--timeout",
    "timeout_s",
    default=10.0,
    show_default=True,
    metavar="S",
    help="limit of an answer",
)
@click.option(
    "--wait",
    "wait_s",
    type=float,
    metavar="S",
    help="listen for so long  [default: two heartbeats]",
)
@click.option("--quick", is_flag=True, help="do not listen for heartbeats")
@json_option
def doctor(
    *,
    url: str,
    cookies: tuple[str, ...],
    notify_url: str | None,
    wait_s: float | None,
    quick: bool,
    as_json: bool,
    **options: object,
) -> int:
    """Ask the service at URL as browsers do, through its proxies, and say what is wrong there.

    URL is that of the site, or of its event stream. Opens 10 event streams at most, changes no
    data, and takes two heartbeats. With --notify-url and a key it also sends four notifications of
    a topic of its own. Exits with 0 if no fault was found, or 1 if one was.

    \b
    Example:
      sse-push doctor https://push.example --merchant-id 42
    """
    from sse_push.doctor import Address, Target

    for name in ("token", "origin", "key"):
        _require(name, str(options[name] or "x"), _HEADER_TEXT, "printable ASCII")
    for cookie in cookies:
        _require("cookie", cookie, _COOKIE, "NAME=VALUE")
    target = Target.of(
        url,
        cookies=cookies,
        notify_address=None if notify_url is None else Address.parse(notify_url),
        wait_s=0.0 if quick else wait_s,
        **options,
    )
    return _examine(target, as_json=as_json)


def _examine(target: Target, *, as_json: bool) -> int:
    import asyncio

    from sse_push.cli.verdict import Verdict, conclude
    from sse_push.doctor import Examination

    examination = Examination(target, lambda text: click.echo(f"{text} …", err=True))
    results = asyncio.run(examination.run())
    faults = dict.fromkeys(each.fault.value for each in results if each.fault is not None)
    where = f"on the way from a browser to {target.address}"
    good = f"{', '.join(faults) or 'nothing wrong'} {where}, by {len(results)} checks"
    verdict = Verdict(good, f"{', '.join(faults)} {where}")
    return conclude(verdict, [each.finding for each in results], as_json=as_json)


def _require(name: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    """Refuse what can't be sent in a header; the value may be a secret."""
    if pattern.fullmatch(value) is None:
        raise click.BadParameter(f"expected {expected}", param_hint=f"--{name}")
