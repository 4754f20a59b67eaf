"""``sse-push tail``: the flags of listening as a browser does; ``listen`` does it."""

from __future__ import annotations

from pathlib import Path

import click

from sse_push.cli.flags import (
    client_env_file_option,
    secret_of,
    token_file_option,
    token_option,
    url_option,
)
from sse_push.errors import InvalidEntryId
from sse_push.runtime.variables import TOKEN_VARIABLE


@click.command()
@click.argument("merchant_id", metavar="MERCHANT")
@url_option
@click.option("--last-event-id", default="", metavar="ID", help="resume after this event")
@click.option("--heartbeats", is_flag=True, help="also print heartbeats")
@token_option
@token_file_option
@client_env_file_option
def tail(
    *,
    merchant_id: str,
    url: str,
    last_event_id: str,
    heartbeats: bool,
    token: str | None,
    token_file: Path | None,
) -> None:
    """Listen as a browser does, and print events, until Ctrl-C.

    Each event has its age: the time since Redis stored the notification, by this machine's clock.

    \b
    Example:
      sse-push tail 42
    """
    from sse_push.cli.listen import listen

    if last_event_id:
        _require_event_id(last_event_id)
    secret = secret_of(TOKEN_VARIABLE, token, token_file)
    listen(url, merchant_id, last_event_id, secret, heartbeats=heartbeats)


def _require_event_id(text: str) -> None:
    """Refuse what is no ID of an event: the service would take it for an unknown one."""
    from sse_push.notification import EventId

    try:
        EventId.parse(text.rpartition("@")[2])
    except InvalidEntryId as exc:
        raise click.BadParameter(
            f"expected the ID of an event, <ms>-<seq>.<history>, as this command prints it, "
            f"got {text!r}",
            param_hint="--last-event-id",
        ) from exc
