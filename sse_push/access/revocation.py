"""Revocations: which grants are taken back before they expire, and how long that is remembered.

Knows merchants, the values that a token's owner gave, and time. Does not know how a revocation
reaches this process, nor what becomes of the streams that it covers.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from sse_push.access.grant import Grant
from sse_push.errors import InvalidRevocation
from sse_push.notification import read_object

CLAIM_BYTES = 4096
"""As long as a token may be; what it carries is shorter."""

FIELDS = ("merchant_id", "jti", "sub")
"""The fields of a revocation, in JSON and in a stream entry."""

_Mark = tuple[str, str, str]
"""One thing that is revoked: a merchant, the name of a claim, its value."""

_ANY = ("", "")
"""Instead of a claim: all that the merchant has given."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Whose grants are taken back: all of a merchant's that were given until now.

    Or with ``token_id`` only those by this token, with ``subject`` only those that were given to
    it until now; with both, the ones and the others.
    """

    merchant_id: str
    token_id: str | None = None
    subject: str | None = None

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Check a decoded JSON object ``{"merchant_id", "jti"?, "sub"?}``.

        Raises:
            InvalidRevocation: not an object, a field is missing, unknown, or of a wrong form.
        """
        merchant_id, claims = read_object(value, FIELDS, InvalidRevocation)
        return cls(merchant_id, _claim(claims, "jti"), _claim(claims, "sub"))

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the fields of a stream entry; those that are unknown are ignored.

        Raises:
            InvalidRevocation: one is missing, or of a wrong form. It counts as no revocation: one
                that says less than was meant would cut off others.
        """
        raw = {name: fields.get(name.encode()) for name in FIELDS}
        try:
            return cls.from_value(
                {name: None if text is None else text.decode() for name, text in raw.items()}
            )
        except UnicodeDecodeError as exc:
            raise InvalidRevocation("expected UTF-8, got a wrong byte") from exc

    def to_fields(self) -> dict[str, str]:
        """Return the fields of the stream entry."""
        fields = {"merchant_id": self.merchant_id, "jti": self.token_id, "sub": self.subject}
        return {name: text for name, text in fields.items() if text is not None}

    @property
    def marks(self) -> list[_Mark]:
        """What it says, one by one, as ``Revocations`` keeps it."""
        claims = [("jti", self.token_id), ("sub", self.subject)]
        named = [(name, value) for name, value in claims if value is not None]
        return [(self.merchant_id, name, value) for name, value in named or [_ANY]]


class Revocations:
    """What is revoked, for as long as a token could live that it covers.

    Times are seconds since 1970, of whichever clock they were taken by: ``clocks_apart_s`` is how
    far those of Redis, of a token's maker and ours may differ. It grows with what is said in
    ``token_max_lifetime_s``, and with nothing else.
    """

    def __init__(
        self,
        keep_s: float = 3600.0,
        clocks_apart_s: float = 5.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep_s = keep_s
        self._clocks_apart_s = clocks_apart_s
        self._wall_clock = wall_clock
        self._since: dict[_Mark, float] = {}
        """When each was said last."""
        self._order: list[tuple[float, _Mark]] = []
        """A heap, since what is read from Redis again may be older than what we have."""

    def __len__(self) -> int:
        return len(self._since)

    def add(self, revocation: Revocation, at: float) -> bool:
        """Remember what was said then; False if that says nothing new, or nothing any more.

        A time that lies ahead of our clock counts as now: Redis's clock was wrong, and what it
        would refuse has not been given yet.
        """
        now = self._wall_clock()
        at = min(at, now + self._clocks_apart_s)
        if at <= now - self._keep_s:
            return False
        news = [mark for mark in revocation.marks if self._since.get(mark, -math.inf) < at]
        for mark in news:
            self._since[mark] = at
            heapq.heappush(self._order, (at, mark))
        return bool(news)

    def covers(self, grant: Grant) -> bool:
        """Return whether a grant was taken back.

        By its token's ID, whenever it was given; by its merchant or its subject, if it was given
        before that was said, or if it is not known when it was given.
        """
        since, merchant_id = self._since, grant.merchant_id
        if grant.token_id is not None and (merchant_id, "jti", grant.token_id) in since:
            return True
        at = since.get((merchant_id, *_ANY), -math.inf)
        if grant.subject is not None:
            at = max(at, since.get((merchant_id, "sub", grant.subject), -math.inf))
        return at > -math.inf and (grant.issued_at is None or at >= grant.issued_at)

    def forget(self) -> None:
        """Let go of what covers no token any more that has not expired."""
        expired_at = self._wall_clock() - self._keep_s
        while self._order and self._order[0][0] <= expired_at:
            at, mark = heapq.heappop(self._order)
            if self._since[mark] == at:  # not said again since
                del self._since[mark]


def _claim(value: Mapping[str, object], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    try:
        if isinstance(text, str) and 1 <= len(text.encode()) <= CLAIM_BYTES:
            return text
    except UnicodeEncodeError as exc:
        raise InvalidRevocation(f"{name}: expected text, got half a surrogate pair") from exc
    raise InvalidRevocation(
        f"{name}: expected text of 1 to {CLAIM_BYTES} bytes, got {ascii(text)[:80]}"
    )
