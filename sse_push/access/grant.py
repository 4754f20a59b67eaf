"""The right to listen: to which merchant, and until when.

Knows merchants, and the claims of a token that identify it. Does not know how the right was proved.
"""

from __future__ import annotations

import hashlib
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


def choose_merchant(permitted: Sequence[str], merchant_id: str | None) -> str:
    """Return the requested merchant if it is permitted; without a request, the only permitted one.

    Raises:
        InvalidMerchantId: the requested ID is malformed, or missing though several are permitted.
        Forbidden: the merchant is not permitted; which ones are is not disclosed.
    """
    if merchant_id is None and len(permitted) == 1:
        return permitted[0]
    parsed = parse_merchant_id(merchant_id)
    if parsed not in permitted:
        raise Forbidden(
            f"expected a merchant that you may listen to, got {parsed!r}", who=name_merchant(parsed)
        )
    return parsed
