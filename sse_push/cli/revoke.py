"""``sse-push revoke``: what a backend does, by hand."""

from __future__ import annotations

from typing import Any

import click

from sse_push.cli.flags import service_options
from sse_push.http import paths


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--jti", help="revoke only the token with this ID")
@click.option("--sub", help="revoke only the tokens of this subject")
@service_options
def revoke(*, as_json: bool, url: str, key: str | None, **fields: Any) -> int:
    """Revoke the tokens of MERCHANT. Print the ID of the revocation.

    Ends the connections of these tokens, and refuses the tokens from now on. Tokens that are issued
    in a later second are valid.

    \b
    Example:
      sse-push revoke 42 --sub user-7
    """
    from sse_push.cli.post import post

    click.echo(post(url, paths.REVOKE, fields, key, as_json=as_json))
    return 0
