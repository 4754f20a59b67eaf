"""The wire format: events as the bytes of a ``text/event-stream``.

Knows the WHATWG format and nothing else: not who gets them, nor how they are written.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from sse_push.hub import Refresh
from sse_push.notification import EntryId

MEDIA_TYPE = "text/event-stream"


class Frame(NamedTuple):
    """Events on their way: their bytes, and the same as one chunk of an HTTP/1.1 body.

    https://www.rfc-editor.org/rfc/rfc9112#name-chunked-transfer-coding
    """

    body: bytes
    chunk: bytes

    @classmethod
    def of(cls, body: bytes) -> Frame:
        """Frame the bytes of one or more whole events."""
        return cls(body, b"%x\r\n%b\r\n" % (len(body), body))


def encode_refreshes(merchant_id: str, refreshes: Sequence[Refresh]) -> Frame:
    """Encode ``refresh`` events, in this order.

    ``id`` always stands with data: a block of an ID alone moves the last event ID in Chromium,
    but not in Firefox. Nothing but our own JSON and typed IDs reaches a line.
    """
    return Frame.of(b"".join(_encode_refresh(merchant_id, refresh) for refresh in refreshes))


def _encode_refresh(merchant_id: str, refresh: Refresh) -> bytes:
    # merchant_id and topic are of a pattern that JSON need not escape; data is JSON already.
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
    newest: EntryId | None,
) -> bytes:
    """Encode the first block of a stream; ``newest`` only if nothing is owed."""
    line = "" if newest is None else f"id: {newest}\n"
    # 15 and not 15.0: a whole number stays one.
    heartbeat = int(heartbeat_s) if heartbeat_s == int(heartbeat_s) else heartbeat_s
    data = _json(
        {"merchant_id": merchant_id, "heartbeat_s": heartbeat, "connection_id": connection_id}
    )
    return f"retry: {retry_ms}\n{line}event: ready\ndata: {data}\n\n".encode()


def encode_goodbye(reason: str, retry_ms: int) -> bytes:
    """Encode the last block of a stream: why it ends, and when to come back."""
    return f'retry: {retry_ms}\nevent: goodbye\ndata: {{"reason":"{reason}"}}\n\n'.encode()


def encode_expiring(expires_in_s: int) -> Frame:
    """Encode the word that a stream's token expires; without id, since it stands for no change."""
    return Frame.of(b'event: expiring\ndata: {"expires_in_s":%d}\n\n' % expires_in_s)


# A named event, since a comment never reaches JavaScript; with data, since an event without
# is not dispatched; without id, since it stands for no change.
HEARTBEAT = Frame.of(b"event: heartbeat\ndata: {}\n\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
