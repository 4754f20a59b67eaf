"""A notification: the data of a merchant has changed; its JSON, and its fields in Redis.

Knows strict JSON and the form of names. Does not know Redis, HTTP or event streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Self

from sse_push.errors import (
    InvalidEntryId,
    InvalidMerchantId,
    InvalidNotification,
    RefusalReason,
    RequestError,
    TooLarge,
)
from sse_push.errors.words import show, suggest

NAME_CHARACTERS = 64
BY_CHARACTERS = 128

NAME_PATTERN = rf"[A-Za-z0-9._:-]{{1,{NAME_CHARACTERS}}}"
"""The form of a name: of a merchant, a topic, or a key that verifies tokens (``kid``)."""

ENTRY_ID_PATTERN = r"[0-9]{1,20}-[0-9]{1,20}"

HISTORY_CHARACTERS = 8
"""Enough that two runs of a server have one name once in four billion; each event carries it."""

_HISTORY_PATTERN = rf"[0-9a-f]{{{HISTORY_CHARACTERS}}}"

EVENT_ID_PATTERN = rf"{ENTRY_ID_PATTERN}(\.{_HISTORY_PATTERN})?"
_UNPRINTABLE = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"
"""Control characters, separators of lines and paragraphs, bidirectional overrides."""

BY_PATTERN = rf"[^{_UNPRINTABLE}]{{1,{BY_CHARACTERS}}}"

FIELDS = ("merchant_id", "topic", "data", "by")
"""The fields of a notification, in JSON, in a form and in a stream entry."""

_NAME = re.compile(NAME_PATTERN)
_NAME_TEXT = f"1 to {NAME_CHARACTERS} characters of A-Z a-z 0-9 . _ : -"
_ENTRY_ID = re.compile(ENTRY_ID_PATTERN)
_HISTORY = re.compile(_HISTORY_PATTERN)
_GREATEST = 10**NAME_CHARACTERS
# Only Python has strings with half of a surrogate pair, so the public pattern need not exclude it.
_BY = re.compile(BY_PATTERN.replace(_UNPRINTABLE, rf"{_UNPRINTABLE}\ud800-\udfff"))
_ESCAPES = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""No line ends in an event stream, but line ends for many programs that read lines."""


class EntryId(NamedTuple):
    """The ID of a stream entry, ``<ms>-<seq>``; ordered as Redis orders IDs."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``<ms>-<seq>``: two ASCII decimal numbers below 2**64, without spaces.

        Raises:
            InvalidEntryId: the text is anything else, or ``0-0``, which no entry can have.

        https://redis.io/docs/latest/develop/data-types/streams/#entry-ids
        """
        match = _ENTRY_ID.fullmatch(text)
        if match is None:
            raise InvalidEntryId(f"expected <ms>-<seq>, got {text[:64]!r}")
        entry_id = cls(*map(int, text.split("-")))
        if max(entry_id) >= 2**64 or entry_id == (0, 0):
            raise InvalidEntryId(f"expected 0-1 to {2**64 - 1}-{2**64 - 1}, got {text!r}")
        return entry_id

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class EventId(NamedTuple):
    """The ID of an event, ``<ms>-<seq>.<history>``: an entry, and in which history it stands.

    A server that was restarted, or that has replaced another one, may have lost entries: it has
    another history. In that history the same entry ID proves nothing. ``history`` is a name, made
    by ``stream.histories``; empty if the server has none.
    """

    entry_id: EntryId
    history: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``<ms>-<seq>.<history>``, or ``<ms>-<seq>``, which names no history.

        Raises:
            InvalidEntryId: the text is anything else.
        """
        entry_id, dot, history = text.partition(".")
        if dot and _HISTORY.fullmatch(history) is None:
            raise InvalidEntryId(f"expected <ms>-<seq>.<history>, got {text[:64]!r}")
        return cls(EntryId.parse(entry_id), history)

    def __str__(self) -> str:
        (ms, seq), history = self  # written out: once per notification, and once per event
        return f"{ms}-{seq}.{history}" if history else f"{ms}-{seq}"


def is_one_history(name: str, other: str) -> bool:
    """Return whether two names are of one history; without a name, nobody knows, so: no."""
    return name == other != ""


def parse_merchant_id(value: object, *, name: str = "merchant_id") -> str:
    """Return a merchant's ID from its text, or from an integer, which PHP sends for numeric IDs.

    ``name`` is what the caller calls the value.

    Raises:
        InvalidMerchantId: the value is neither, or the text is not of the form of a name.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _GREATEST:
        value = str(value)
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    got = "none" if value is None else show(value)
    raise InvalidMerchantId(f"{name}: expected {_NAME_TEXT}, or an integer; got {got}")


def read_object(
    value: object, fields: Collection[str], error: type[RequestError]
) -> tuple[str, dict[str, object]]:
    """Return the merchant of a decoded JSON object, and its other fields that are not ``null``.

    ``fields`` are all fields that the object may have. A field that is ``null`` counts as absent.

    Raises:
        RequestError: of the type ``error``: the value is not an object, ``merchant_id`` is missing
            or malformed, or a field is unknown.
    """
    if not isinstance(value, dict):
        raise error(f"expected a JSON object with merchant_id, got {show(value)}")
    unknown = next((name for name in value if name not in fields), None)
    if unknown is not None:
        raise error(
            f"expected only the fields {', '.join(fields)}, got {ascii(unknown)[:80]}"
            f"{suggest(unknown, fields)}",
            reason=RefusalReason.UNKNOWN_FIELD,
        )
    given = {name: each for name, each in value.items() if each is not None}
    if "merchant_id" not in given:
        raise error(f"merchant_id: expected {_NAME_TEXT}, or an integer; got none")
    try:
        return parse_merchant_id(given.pop("merchant_id")), given
    except InvalidMerchantId as exc:
        raise error(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class Notification:
    """A backend's message that the data of ``merchant_id`` has changed.

    ``topic``: the part that has changed; None: any part. ``data``: JSON text on one line. ``by``:
    the sender's own name for the tab or user that made the change.
    """

    merchant_id: str
    topic: str | None = None
    data: str | None = None
    by: str | None = None

    @classmethod
    def from_value(cls, value: object, *, data_limit_bytes: int) -> Self:
        """Check a decoded JSON object ``{"merchant_id", "topic"?, "data"?, "by"?}``.

        Raises:
            InvalidNotification: the value is not an object, or a field is missing, unknown or
                malformed.
            TooLarge: ``data`` is longer than ``data_limit_bytes`` as compact UTF-8 JSON.
        """
        merchant_id, given = read_object(value, FIELDS, InvalidNotification)
        topic, data, by = given.get("topic"), given.get("data"), given.get("by")
        if topic is not None and not (isinstance(topic, str) and _NAME.fullmatch(topic)):
            raise InvalidNotification(f"topic: expected {_NAME_TEXT}, got {show(topic)}")
        if by is not None and not (isinstance(by, str) and _BY.fullmatch(by)):
            raise InvalidNotification(
                f"by: expected 1 to {BY_CHARACTERS} printable characters, got {show(by)}"
            )
        return cls(merchant_id, topic, _encode_data(data, data_limit_bytes), by)

    @classmethod
    def from_fields(
        cls, merchant_id: str, fields: Mapping[bytes, bytes], *, data_limit_bytes: int
    ) -> Self:
        """Read the fields of a stream entry, which any program may have added.

        An unknown or malformed field counts as absent: the entry still means that the merchant's
        data has changed, and a refresh without that field is right.
        """
        topic = _text(fields.get(b"topic"))
        by = _text(fields.get(b"by"))
        return cls(
            merchant_id,
            topic if topic is not None and _NAME.fullmatch(topic) else None,
            _read_data(fields.get(b"data"), data_limit_bytes),
            by if by is not None and _BY.fullmatch(by) else None,
        )

    def to_fields(self) -> dict[str, str]:
        """Return the fields of the stream entry; never empty, since Redis requires a field."""
        fields = {"topic": self.topic, "data": self.data, "by": self.by}
        return {name: text for name, text in fields.items() if text is not None} or {"topic": ""}


class Entry(NamedTuple):
    """A notification in a merchant's stream.

    ``fingerprint`` is a hash of the fields as Redis has them, of use within this process only: an
    ID can be given again once its stream was deleted, and then two entries have one ID.
    """

    id: EntryId
    notification: Notification
    fingerprint: int = 0
    is_planted: bool = False
    """It says nothing, and is there to give its stream an ID (``stream.planting``)."""


class Change(NamedTuple):
    """What a read of a merchant's stream has shown to be new; all IDs are of one history.

    ``newest``: the newest ID of the stream, None if it has no entry. ``entries``: every entry since
    the last read that says something, oldest first; None if not all of them are known; empty if
    there is none, and only the newest ID has changed. ``is_resync``: history was trimmed, replaced
    or lost, so that ``newest`` may be lower than before.
    """

    merchant_id: str
    newest: EntryId | None
    entries: tuple[Entry, ...] | None = None
    is_resync: bool = False


def parse_json(body: bytes) -> object:
    """Decode a JSON text strictly: UTF-8, no NaN, no name twice in an object.

    Raises:
        InvalidNotification: the text is anything else; the error says where.

    https://www.rfc-editor.org/rfc/rfc8259
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_refuse_duplicates,
        )
    except UnicodeDecodeError as exc:
        raise InvalidNotification(f"expected UTF-8, got a wrong byte at {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise InvalidNotification(
            f"expected JSON, got {exc.msg.lower()} at character {exc.pos}"
        ) from exc
    except RecursionError as exc:
        raise InvalidNotification("expected JSON, got one nested too deeply") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise InvalidNotification("expected JSON, got a number with too many digits") from exc


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidNotification(f"expected JSON, got {name}, which is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidNotification("expected each name once in a JSON object, got one twice")
    return value


def _encode_data(data: object, data_limit_bytes: int) -> str | None:
    if data is None:
        return None
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if not text.isascii():
            for character, escape in _ESCAPES.items():
                text = text.replace(character, escape)
        size_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise InvalidNotification("data: expected Unicode text, got half a surrogate pair") from exc
    except ValueError as exc:  # 1e999 parses, as infinity
        raise InvalidNotification("data: expected finite numbers, got one that is not") from exc
    except RecursionError as exc:
        raise InvalidNotification("data: expected JSON, got one nested too deeply") from exc
    if size_bytes > data_limit_bytes:
        raise TooLarge(
            f"data: expected at most {data_limit_bytes} bytes, got {size_bytes}",
            reason=RefusalReason.DATA_TOO_LARGE,
        )
    return text


def _read_data(raw: bytes | None, data_limit_bytes: int) -> str | None:
    if raw is None or len(raw) > data_limit_bytes:
        return None
    try:
        return _encode_data(parse_json(raw), data_limit_bytes)
    except (InvalidNotification, TooLarge):
        return None


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
