"""``sse-push doctor``: what is wrong on the way from a browser to the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sse_push.cli.flags import (
    client_env_file_option,
    json_option,
    key_file_option,
    key_option,
    secret_of,
    token_file_option,
    token_option,
)
from sse_push.runtime.variables import KEY_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE

if TYPE_CHECKING:
    from sse_push.doctor import Target

_HEADER_TEXT = re.compile(r"[\x20-\x7e]+")
_COOKIE = re.compile(r"[^\s=;,]+=[\x21-\x7e]*")


@click.command()
@click.argument("url", metavar="URL")
@click.option("--merchant-id", metavar="ID", help="merchant to listen to  [default: the token's]")
@token_option
@token_file_option
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="cookie of a page")
@click.option("--origin", help="origin of the pages, if it is another one: https://app.example")
@click.option(
    "--notify-url",
    metavar="URL",
    envvar=URL_VARIABLE,
    show_envvar=True,
    help="URL for backends; with it and a key, events are timed",
)
@key_option
@key_file_option
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
def doctor(*, as_json: bool, **options: Any) -> int:
    """Ask the service at URL as browsers do, through its proxies, and say what is wrong there.

    URL is that of the site, or of its event stream. Opens 10 event streams at most, changes no
    data, and takes two heartbeats. With --notify-url and a key it also sends four notifications of
    a topic of its own. Exits with 0 if no fault was found, or 1 if one was.

    \b
    Example:
      sse-push doctor https://push.example --merchant-id 42
    """
    return _examine(_target(**options), as_json=as_json)


def _target(
    *,
    url: str,
    cookies: tuple[str, ...],
    token: str | None,
    token_file: Path | None,
    key: str | None,
    key_file: Path | None,
    notify_url: str | None,
    wait_s: float | None,
    quick: bool,
    **options: str | float | None,
) -> Target:
    """Check what is given, and return what to examine."""
    from sse_push.doctor import Address, Target

    token = secret_of(TOKEN_VARIABLE, token, token_file)
    key = secret_of(KEY_VARIABLE, key, key_file)
    for name, text in (("token", token), ("key", key), ("origin", options["origin"])):
        _require(name, str(text or "x"), _HEADER_TEXT, "printable ASCII")
    for cookie in cookies:
        _require("cookie", cookie, _COOKIE, "NAME=VALUE")
    if key is None and _is_by_chance("notify_url"):
        notify_url = None
    return Target.of(
        url,
        token=token,
        key=key,
        cookies=cookies,
        notify_address=None if notify_url is None else Address.parse(notify_url),
        wait_s=0.0 if quick else wait_s,
        **options,
    )


def _is_by_chance(parameter: str) -> bool:
    """Return whether a parameter was not given here, but by a variable or a file of them."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source in (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


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
