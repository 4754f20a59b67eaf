"""The wire format: events as the bytes of a ``text/event-stream``.

Knows the WHATWG format. Does not know which client gets an event, nor how it is written.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from sse_push.hub import Refresh
from sse_push.notification import EventId

MEDIA_TYPE = "text/event-stream"

Standing = EventId | Literal["owed", "pending"] | None
"""Where a client stands at one of its merchants: it is owed nothing up to an ID; or a refresh
follows; or Redis has not answered yet. None: it is owed nothing, and there is no entry."""


class Frame:
    """One or more whole events: their bytes, and these as one chunk of an HTTP/1.1 body.

    https://www.rfc-editor.org/rfc/rfc9112#name-chunked-transfer-coding
    """

    __slots__ = ("_named", "body", "chunk")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.chunk = b"%x\r\n%b\r\n" % (len(body), body)
        self._named: Frame | None = None

    def named(self, merchant_id: str) -> Frame:
        """Return the same events with IDs that name their merchant; made once, for all clients.

        No line but that of an ID begins with ``id:``, whatever is in the data.
        """
        if self._named is None:
            if b"id: " not in self.body:
                return self
            line = b"\nid: %b@" % merchant_id.encode()
            self._named = Frame((b"\n" + self.body).replace(b"\nid: ", line)[1:])
        return self._named


def encode_refreshes(merchant_id: str, refreshes: Sequence[Refresh]) -> Frame:
    """Encode ``refresh`` events, in this order.

    Each ``id`` comes with data: a block of an ID alone changes the last event ID in Chromium, but
    not in Firefox. Lines hold only our own JSON and typed IDs, so that no input can add a line.
    """
    return Frame(b"".join(_encode_refresh(merchant_id, refresh) for refresh in refreshes))


def _encode_refresh(merchant_id: str, refresh: Refresh) -> bytes:
    # merchant_id and topic match patterns without characters to escape; data is JSON already.
    data = f'{{"merchant_id":"{merchant_id}"'
    if refresh.topic is not None:
        data += f',"topic":"{refresh.topic}"'
    if refresh.data is not None:
        data += f',"data":{refresh.data}'
    if refresh.by is not None:
        data += f',"by":{_json(refresh.by)}'
    if refresh.reason is not None:
        data += f',"reason":"{refresh.reason}"'
    line = "" if refresh.id is None else f"id: {refresh.id}\n"
    return f"{line}event: refresh\ndata: {data}}}\n\n".encode()


def encode_ready(
    merchant_id: str,
    *,
    retry_ms: int,
    heartbeat_s: float,
    connection_id: str,
    newest: EventId | None,
    is_named: bool = False,
    grant: str | None = None,
) -> bytes:
    """Encode the first event of a connection; ``newest`` only if the client is owed nothing."""
    name = f"{merchant_id}@" if is_named else ""
    line = "" if newest is None else f"id: {name}{newest}\n"
    data = {"merchant_id": merchant_id, **_of_connection(grant, heartbeat_s, connection_id)}
    return f"retry: {retry_ms}\n{line}event: ready\ndata: {_json(data)}\n\n".encode()


def encode_ready_for_all(
    standings: Mapping[str, Standing],
    *,
    retry_ms: int,
    heartbeat_s: float,
    connection_id: str,
    grant: str | None,
) -> bytes:
    """Encode the first event of a connection to several merchants, which says how each stands.

    Without ``id``: one last event ID can't stand for several merchants.
    """
    merchants = {each: _told(each, standing) for each, standing in standings.items()}
    data = {"merchants": merchants, **_of_connection(grant, heartbeat_s, connection_id)}
    return f"retry: {retry_ms}\nevent: ready\ndata: {_json(data)}\n\n".encode()


def _told(merchant_id: str, standing: Standing) -> Mapping[str, object]:
    if isinstance(standing, str):
        return {standing: True}
    return {"id": None if standing is None else f"{merchant_id}@{standing}"}


def _of_connection(
    grant: str | None, heartbeat_s: float, connection_id: str
) -> Mapping[str, object]:
    # 15 and not 15.0: a whole number has no fraction.
    heartbeat = int(heartbeat_s) if heartbeat_s == int(heartbeat_s) else heartbeat_s
    digest = {} if grant is None else {"grant": grant}
    return {**digest, "heartbeat_s": heartbeat, "connection_id": connection_id}


def encode_position(merchant_id: str, newest: EventId | None) -> Frame:
    """Encode the event that follows if ``ready`` could not say where the client stands.

    It says that the client is owed nothing up to this ID.
    """
    line = "" if newest is None else f"id: {newest}\n"
    return Frame(f'{line}event: position\ndata: {{"merchant_id":"{merchant_id}"}}\n\n'.encode())


def encode_goodbye(reason: str, retry_ms: int) -> bytes:
    """Encode the last event of a connection: why it ends, and when to reconnect."""
    return f'retry: {retry_ms}\nevent: goodbye\ndata: {{"reason":"{reason}"}}\n\n'.encode()


def encode_expiring(expires_in_s: int) -> Frame:
    """Encode the event before a token expires; without ``id``, since no data has changed."""
    return Frame(b'event: expiring\ndata: {"expires_in_s":%d}\n\n' % expires_in_s)


# A named event, since JavaScript never sees a comment; with data, since an event without data is
# not dispatched; without ``id``, since no data has changed.
HEARTBEAT = Frame(b"event: heartbeat\ndata: {}\n\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
