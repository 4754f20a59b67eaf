"""``sse-push token``: sign a token, to try the service out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sse_push.cli.flags import env_file_option, json_option, warn_of_file
from sse_push.errors import ConfigError

if TYPE_CHECKING:
    from sse_push.runtime.env_file import EnvFile
    from sse_push.settings import Settings


@click.command()
@click.argument("merchants", metavar="MERCHANT...", nargs=-1, required=True)
@click.option("--expires-in", default="15m", show_default=True, help="as in 90s, 15m or 1h")
@click.option("--sub", help="subject, such as a user: its tokens can be revoked together")
@click.option("--jti", help="ID of the token  [default: random]")
@env_file_option
@json_option
def token(*, env_file: EnvFile | None, as_json: bool, **claims: Any) -> int:
    """Print a token for MERCHANT, to try the service out.

    The token lets a client listen to MERCHANT. It is signed with HS256 and the first of
    SSE_PUSH_TOKEN_KEYS, and has the aud and the iss that the service expects. A backend signs its
    own tokens, with any JWT library.

    \b
    Example:
      sse-push token 42 --expires-in 15m --env-file .env
    """
    from sse_push.settings import Settings

    warn_of_file(env_file)
    text, lifetime_s = _signed(Settings.load(env_file), **claims)
    click.echo(json.dumps({"token": text, "expires_in_s": lifetime_s}) if as_json else text)
    return 0


def _signed(
    settings: Settings, merchants: Sequence[str], expires_in: str, sub: str | None, jti: str | None
) -> tuple[str, int]:
    """Return a token that this service accepts, and its lifetime in seconds."""
    from sse_push.access.tokens import sign
    from sse_push.notification import parse_merchant_id

    if not settings.token_keys:
        raise ConfigError(
            "token_keys (SSE_PUSH_TOKEN_KEYS): expected an HMAC secret to sign with, got none"
        )
    lifetime_s = _parse_duration(expires_in)
    if not 1 <= lifetime_s <= settings.token_max_lifetime_s:
        raise click.BadParameter(
            f"expected 1 s to {settings.token_max_lifetime_s:g} s (token_max_lifetime_s), "
            f"got {expires_in!r}",
            param_hint="--expires-in",
        )
    text = sign(
        settings.token_keys[0],
        [parse_merchant_id(merchant) for merchant in merchants],
        lifetime_s=lifetime_s,
        subject=sub,
        token_id=jti,
        audience=settings.token_audience,
        issuer=settings.token_issuer,
    )
    return text, lifetime_s


def _parse_duration(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise click.BadParameter(
            f"expected a time as in 90s, 15m or 1h, got {text!r}", param_hint="--expires-in"
        )
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
