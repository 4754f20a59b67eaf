"""What a client may listen to, and until when.

Knows merchants and the values that a token's owner gave. Does not know how they were proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sse_push.errors import Forbidden
from sse_push.notification import parse_merchant_id


class Grant(NamedTuple):
    """The right to listen to one merchant; ``None`` is what was not said.

    Times are seconds since 1970 by the wall clock. ``subject`` and ``token_id`` are the token's
    ``sub`` and ``jti``: whom to cut off, should it be revoked.
    """

    merchant_id: str
    expires_at: float | None = None
    subject: str | None = None
    token_id: str | None = None
    issued_at: float | None = None


def choose(merchants: Sequence[str], asked: str | None) -> str:
    """Return the merchant that is asked for, if it is one of these; the only one if none is.

    Raises:
        InvalidMerchantId: the text names none, or is needed and absent.
        Forbidden: it names another one; which ones there are is not said.
    """
    if asked is None and len(merchants) == 1:
        return merchants[0]
    merchant_id = parse_merchant_id(asked)
    if merchant_id not in merchants:
        raise Forbidden(f"expected a merchant that you may listen to, got {merchant_id!r}")
    return merchant_id
