"""``sse-push notify``: what a backend does, by hand."""

from __future__ import annotations

import json
from typing import Any

import click

from sse_push.cli.flags import service_options
from sse_push.http import paths


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@click.option("--topic", help="part of the merchant's data that has changed")
@click.option("--data", metavar="JSON", help="details of the change, as JSON")
@click.option("--by", help="tab or user that made the change")
@service_options
def notify(*, data: str | None, as_json: bool, url: str, key: str | None, **fields: Any) -> int:
    """Tell every browser of MERCHANT to refresh. Print the ID of the notification.

    \b
    Example:
      sse-push notify 42 --topic seats --data '{"seat": "C7"}'
    """
    from sse_push.cli.post import post

    if data is not None:
        try:
            fields["data"] = json.loads(data)
            json.dumps(fields["data"], allow_nan=False)  # Python reads NaN and Infinity as well
        except (ValueError, RecursionError) as exc:
            text = f"{data[:200]!r}{'…' if len(data) > 200 else ''}"
            raise click.BadParameter(f"expected JSON, got {text}", param_hint="--data") from exc
    click.echo(post(url, paths.NOTIFY, fields, key, as_json=as_json))
    return 0
