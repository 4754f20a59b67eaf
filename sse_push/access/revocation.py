"""Revocations: which grants end before they expire, and how long a revocation is remembered.

Knows merchants, the claims of tokens, and time. Does not know how a revocation reaches this
process, nor how a connection is ended.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from sse_push.access.grant import Grant
from sse_push.errors import InvalidRevocation
from sse_push.notification import read_object

CLAIM_BYTES = 4096
"""The greatest length of a token, so that any claim of a token can be named."""

FIELDS = ("merchant_id", "jti", "sub")
"""The fields of a revocation, in JSON and in a stream entry."""


class Mark(NamedTuple):
    """What is revoked: a merchant's tokens with this claim, or, without a claim, all its grants."""

    merchant_id: str
    claim: Literal["", "jti", "sub"] = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a backend revokes: every grant of a merchant that was issued until now.

    With ``token_id`` only the grant of that token is revoked, with ``subject`` only the grants
    that were issued to that subject until now; with both, either match is enough.
    """

    merchant_id: str
    token_id: str | None = None
    subject: str | None = None

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Check a decoded JSON object ``{"merchant_id", "jti"?, "sub"?}``.

        Raises:
            InvalidRevocation: not an object, or a field is missing, unknown or malformed.
        """
        merchant_id, claims = read_object(value, FIELDS, InvalidRevocation)
        return cls(merchant_id, _claim(claims, "jti"), _claim(claims, "sub"))

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the fields of a stream entry; unknown fields are ignored.

        Raises:
            InvalidRevocation: a field is missing or malformed. The entry must be ignored as a
                whole: without its malformed claim it would revoke the grants of others.
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
    def marks(self) -> list[Mark]:
        """The marks that ``Revocations`` stores for this revocation."""
        marks = []
        if self.token_id is not None:
            marks.append(Mark(self.merchant_id, "jti", self.token_id))
        if self.subject is not None:
            marks.append(Mark(self.merchant_id, "sub", self.subject))
        return marks or [Mark(self.merchant_id)]


class Revocations:
    """The revocations of grants that may still be valid; the others are forgotten.

    Times are seconds since 1970. They are read from three clocks: Redis's (the time of a
    revocation), the token issuer's (``iat``) and ours; ``clocks_apart_s`` is how far these may
    differ. Memory is bounded by the revocations of the last ``keep_s``, the longest lifetime of a
    token.
    """

    def __init__(
        self,
        keep_s: float,
        clocks_apart_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep_s = keep_s
        self._clocks_apart_s = clocks_apart_s
        self._wall_clock = wall_clock
        self._latest: dict[Mark, float] = {}
        """The latest time at which each mark was revoked."""
        self._order: list[tuple[float, Mark]] = []
        """A heap, since a read that is repeated may bring times that are older than the last."""

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, revocation: Revocation, at: float) -> bool:
        """Remember a revocation; return False if it is known already, or too old to matter.

        A time ahead of our clock counts as now: Redis's clock was wrong, and no grant has been
        issued since.
        """
        now = self._wall_clock()
        at = min(at, now + self._clocks_apart_s)
        if at <= now - self._keep_s:
            return False
        news = [mark for mark in revocation.marks if self._latest.get(mark, -math.inf) < at]
        for mark in news:
            self._latest[mark] = at
            heapq.heappush(self._order, (at, mark))
        return bool(news)

    def revokes(self, grant: Grant) -> bool:
        """Return whether a grant is revoked.

        A revoked token ID matches whenever the token was issued. A revoked merchant or subject
        matches if the grant was issued until then, or if its time of issue is unknown.
        """
        latest, merchant_id = self._latest, grant.merchant_id
        if grant.token_id is not None and Mark(merchant_id, "jti", grant.token_id) in latest:
            return True
        at = latest.get(Mark(merchant_id), -math.inf)
        if grant.subject is not None:
            at = max(at, latest.get(Mark(merchant_id, "sub", grant.subject), -math.inf))
        return at > -math.inf and (grant.issued_at is None or at >= grant.issued_at)

    def forget(self) -> None:
        """Drop the revocations whose grants have all expired."""
        expired_at = self._wall_clock() - self._keep_s
        while self._order and self._order[0][0] <= expired_at:
            at, mark = heapq.heappop(self._order)
            if self._latest[mark] == at:  # otherwise it was revoked again later
                del self._latest[mark]


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
