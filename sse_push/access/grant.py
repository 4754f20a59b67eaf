"""The right to listen: to which merchant, and until when.

Knows merchants, and the claims of a token that identify it. Does not know how the right was proved.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple, NewType

from sse_push.access.keys import name_merchant
from sse_push.errors import Forbidden
from sse_push.notification import parse_merchant_id

ClaimHash = NewType("ClaimHash", bytes)
"""What is kept of the ``sub`` or the ``jti`` of a token, of whatever length: 16 bytes."""

CLAIM_HASH_BYTES = 16
"""Two claims with the same hash, which nobody finds in 2 ** 64 attempts, would be revoked together.
"""

_DIGEST_BYTES = 8
"""Rights that differ have the same digest one time in 2 ** 64."""


def hash_claim(text: str) -> ClaimHash:
    """Return the hash of a claim; half a surrogate pair, which JSON may contain, has one too."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return ClaimHash(digest[:CLAIM_HASH_BYTES])


class Grant(NamedTuple):
    """The right to listen to one merchant; a field is ``None`` if there is no such claim.

    Times are seconds since 1970 by the wall clock. ``subject`` and ``token_id`` are the hashes of
    the token's ``sub`` and ``jti``, by which a revocation names it.
    """

    merchant_id: str
    expires_at: float | None = None
    subject: ClaimHash | None = None
    token_id: ClaimHash | None = None
    issued_at: float | None = None


class Rights(NamedTuple):
    """What a client may listen to: a grant for each merchant that it wants, and all permitted ones.

    All grants have the same claims.
    """

    grants: tuple[Grant, ...]
    permitted: tuple[str, ...] = ()
    """Empty: any merchant."""

    @property
    def merchant_ids(self) -> tuple[str, ...]:
        """The merchants of the grants."""
        return tuple([grant.merchant_id for grant in self.grants])

    def digest(self, key: bytes) -> str:
        """Return 16 hexadecimal digits that stand for the subject and all permitted merchants.

        Two clients have the same digest if they have the same rights; without the key nobody finds
        a subject by trying.
        """
        subject = self.grants[0].subject
        names = ["" if subject is None else subject.hex(), *sorted(self.permitted)]
        return hmac.digest(key, "\n".join(names).encode(), "sha256")[:_DIGEST_BYTES].hex()


def choose_merchants(permitted: Sequence[str], requested: Sequence[str]) -> tuple[str, ...]:
    """Return the requested merchants, each once, if all are permitted; without any, all permitted.

    Raises:
        InvalidMerchantId: a requested ID is malformed.
        Forbidden: a merchant is not permitted. The first one is named; which ones are permitted is
            not disclosed.
    """
    if not requested:
        return tuple(dict.fromkeys(permitted))
    chosen = tuple(dict.fromkeys(map(parse_merchant_id, requested)))
    for each in chosen:
        if each not in permitted:
            raise Forbidden(
                f"expected a merchant that you may listen to, got {each!r}", who=name_merchant(each)
            )
    return chosen
