"""Revocations: which grants end before they expire, and how long a revocation is remembered.

Knows merchants, the claims of tokens, and time. Does not know how a revocation reaches this
process, nor how a connection is ended.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from sse_push.access.grant import CLAIM_HASH_BYTES, ClaimHash, Grant, hash_claim
from sse_push.errors import InvalidRevocation
from sse_push.errors.words import show
from sse_push.notification import read_object

logger = logging.getLogger(__name__)

CLAIM_BYTES = 4096
"""The greatest length of a token, so that any claim of a token can be named."""

FIELDS = ("merchant_id", "jti", "sub")
"""The fields of a revocation in JSON; version 0.1 wrote them into the stream as well."""

HASH_FIELDS = ("jti_hash", "sub_hash")
"""The fields of a stream entry that name claims. Version 0.1 ignores fields that it does not know,
and takes such an entry for a revocation of the whole merchant, which is the safe direction."""

MERCHANT_MARKS_MAX = 1_000
"""At most this many tokens and subjects of one merchant are remembered one by one."""

MARKS_MAX = 100_000
"""At most this many marks are remembered: some 11 MB in each worker."""

_HASH = re.compile(rf"[0-9a-f]{{{2 * CLAIM_HASH_BYTES}}}")
_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a backend revokes: every grant of a merchant that was issued until now.

    With ``token_id`` only the grant of that token is revoked, with ``subject`` only the grants
    that were issued to that subject until now; with both, either match is enough.
    """

    merchant_id: str
    token_id: ClaimHash | None = None
    subject: ClaimHash | None = None

    @classmethod
    def naming(
        cls, merchant_id: str, token_id: str | None = None, subject: str | None = None
    ) -> Self:
        """Return a revocation that names claims as they stand in a token."""
        hashes = (None if text is None else hash_claim(text) for text in (token_id, subject))
        return cls(merchant_id, *hashes)

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Check a decoded JSON object ``{"merchant_id", "jti"?, "sub"?}``.

        Raises:
            InvalidRevocation: not an object, or a field is missing, unknown or malformed.
        """
        merchant_id, claims = read_object(value, FIELDS, InvalidRevocation)
        return cls.naming(merchant_id, _claim(claims, "jti"), _claim(claims, "sub"))

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the fields of a stream entry; unknown fields are ignored, a hash wins over its text.

        Raises:
            InvalidRevocation: a field is missing or malformed. The entry must be ignored as a
                whole: without its malformed claim it would revoke the grants of others.
        """
        try:
            texts = {
                name: fields[name.encode()].decode()
                for name in (*FIELDS, *HASH_FIELDS)
                if name.encode() in fields
            }
        except UnicodeDecodeError as exc:
            raise InvalidRevocation("expected UTF-8, got a wrong byte") from exc
        token_id, subject = (_hash(texts.pop(name, None), name) for name in HASH_FIELDS)
        named = cls.from_value(texts)
        return cls(named.merchant_id, token_id or named.token_id, subject or named.subject)

    def to_fields(self) -> dict[str, str]:
        """Return the fields of the stream entry."""
        hashes = zip(HASH_FIELDS, (self.token_id, self.subject), strict=True)
        return {
            "merchant_id": self.merchant_id,
            **{name: claim.hex() for name, claim in hashes if claim is not None},
        }

    def revokes(self, grant: Grant, at: float) -> bool:
        """Return whether this revocation, made at this time, revokes a grant.

        A token ID matches whenever the token was issued. A merchant or subject matches if the grant
        was issued until then, or if its time of issue is unknown.
        """
        if grant.merchant_id != self.merchant_id:
            return False
        if self.token_id is not None and grant.token_id == self.token_id:
            return True
        is_named = self.subject is not None and grant.subject == self.subject
        is_of_all = self.token_id is None and self.subject is None
        return (is_named or is_of_all) and (grant.issued_at is None or at >= grant.issued_at)


class _Marks:
    """What is revoked of one merchant: its grants until some time, and claims, each at its time."""

    __slots__ = ("merged_at", "revoked_at", "subjects", "tokens")

    def __init__(self) -> None:
        self.revoked_at = _NEVER
        self.merged_at = _NEVER
        """Claims that were revoked until then have one mark together."""
        self.tokens: dict[ClaimHash, float] = {}
        self.subjects: dict[ClaimHash, float] = {}

    def __len__(self) -> int:
        is_of_all = max(self.revoked_at, self.merged_at) > _NEVER
        return len(self.tokens) + len(self.subjects) + is_of_all

    def add(self, revocation: Revocation, at: float) -> bool:
        """Remember a revocation; return False if it is known already.

        A claim that may have been merged counts as unknown, and is not remembered again.
        """
        is_new = False
        claims = ((self.tokens, revocation.token_id), (self.subjects, revocation.subject))
        for marks, claim in claims:
            if claim is not None and marks.get(claim, _NEVER) < at:
                is_new = True
                if at > self.merged_at:
                    marks[claim] = at
        if revocation.token_id is None and revocation.subject is None:
            is_new = self.revoked_at < at
            self.revoked_at = max(self.revoked_at, at)
        return is_new

    def merge(self) -> None:
        """Put one mark in the place of those of all claims."""
        self.merged_at = max(self.merged_at, *self.tokens.values(), *self.subjects.values())
        self.tokens.clear()
        self.subjects.clear()

    def forget(self, expired_at: float) -> None:
        """Drop the marks that are as old as this."""
        self.revoked_at = self.revoked_at if self.revoked_at > expired_at else _NEVER
        self.merged_at = self.merged_at if self.merged_at > expired_at else _NEVER
        self.tokens = {claim: at for claim, at in self.tokens.items() if at > expired_at}
        self.subjects = {claim: at for claim, at in self.subjects.items() if at > expired_at}


class Revocations:
    """The revocations of grants that may still be valid; the others are forgotten.

    Times are seconds since 1970. They are read from three clocks: Redis's (the time of a
    revocation), the token issuer's (``iat``) and ours; ``clocks_apart_s`` is how far these may
    differ. ``keep_s``: the longest lifetime of a token.

    Memory is bounded. A merchant with more than ``MERCHANT_MARKS_MAX`` claims gets one mark in the
    place of these, and more than ``MARKS_MAX`` marks are replaced by one for all merchants. Such a
    mark refuses every token that was issued until then: too many, never too few.
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
        self._merchants: dict[str, _Marks] = {}
        self._count = 0
        """The marks of all merchants."""
        self._newest_at = _NEVER
        self._merged_at = _NEVER
        """All that was revoked until then, of any merchant, has one mark together."""

    def __len__(self) -> int:
        return self._count + (self._merged_at > _NEVER)

    def add(self, revocation: Revocation, at: float) -> float | None:
        """Remember a revocation; return the time that counts for it.

        A time ahead of our clock counts as now: Redis's clock was wrong, and no grant has been
        issued since. None: it is known already, or too old to matter.
        """
        now = self._wall_clock()
        at = min(at, now + self._clocks_apart_s)
        if at <= now - self._keep_s:
            return None
        if at <= self._merged_at:
            return at  # the grants are refused already, but connections may be open
        self._newest_at = max(self._newest_at, at)
        marks = self._merchants.setdefault(revocation.merchant_id, _Marks())
        before = len(marks)
        is_new = marks.add(revocation, at)
        if len(marks.tokens) + len(marks.subjects) > MERCHANT_MARKS_MAX:
            self._merge(revocation.merchant_id, marks)
        self._count += len(marks) - before
        if self._count > MARKS_MAX:
            self._merge_all()
        return at if is_new else None

    def revoke_all(self, until: float) -> None:
        """Revoke every grant that was issued until then, of any merchant."""
        until = min(until, self._wall_clock() + self._clocks_apart_s)
        self._merged_at = max(self._merged_at, until)
        logger.warning("too many revocations, all older tokens are refused")

    def _merge(self, merchant_id: str, marks: _Marks) -> None:
        marks.merge()
        logger.warning(
            "too many revocations of a merchant, its older tokens are refused merchant_id=%s",
            merchant_id,
        )

    def _merge_all(self) -> None:
        self._merchants.clear()
        self._count = 0
        self.revoke_all(self._newest_at)

    def revokes(self, grant: Grant) -> bool:
        """Return whether a grant is revoked.

        A merged mark covers tokens that were revoked by their ID, so that it counts for those whose
        issuer's clock is ahead as well.
        """
        until = self._merged_at + self._clocks_apart_s
        marks = self._merchants.get(grant.merchant_id)
        if marks is not None:
            if grant.token_id in marks.tokens:
                return True
            until = max(until, marks.merged_at + self._clocks_apart_s, marks.revoked_at)
            if grant.subject is not None:
                until = max(until, marks.subjects.get(grant.subject, _NEVER))
        return until > _NEVER and (grant.issued_at is None or until >= grant.issued_at)

    def forget(self) -> None:
        """Drop the revocations whose grants have all expired."""
        expired_at = self._wall_clock() - self._keep_s
        if self._merged_at <= expired_at:
            self._merged_at = _NEVER
        for merchant_id, marks in list(self._merchants.items()):
            before = len(marks)
            marks.forget(expired_at)
            self._count += len(marks) - before
            if not marks:
                del self._merchants[merchant_id]


def _claim(value: Mapping[str, object], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    try:
        if isinstance(text, str) and 1 <= len(text.encode()) <= CLAIM_BYTES:
            return text
    except UnicodeEncodeError as exc:
        raise InvalidRevocation(f"{name}: expected text, got half a surrogate pair") from exc
    raise InvalidRevocation(f"{name}: expected text of 1 to {CLAIM_BYTES} bytes, got {show(text)}")


def _hash(text: str | None, name: str) -> ClaimHash | None:
    if text is None:
        return None
    if _HASH.fullmatch(text) is None:
        raise InvalidRevocation(f"{name}: expected a hash in hex, got {ascii(text)[:80]}")
    return ClaimHash(bytes.fromhex(text))
