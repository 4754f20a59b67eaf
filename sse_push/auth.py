"""Who may notify, and who may listen.

Knows keys and how they are compared. Does not know HTTP beyond the text of one header, nor what
follows from a yes.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Literal

from pydantic import SecretStr

from sse_push.errors import Unauthorized
from sse_push.notification import parse_merchant_id

_SCHEME = "bearer"


def authorize_notify(
    authorization: str | None, keys: Sequence[SecretStr] | Literal["none"]
) -> None:
    """Check ``Authorization: Bearer <key>`` against the keys that may notify.

    Every key is compared, each in constant time, so that the time tells nothing.

    Raises:
        Unauthorized: no header, another scheme, or a key that is none of ours.

    https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    """
    if keys == "none":
        return
    scheme, _, came = (authorization or "").partition(" ")
    if scheme.lower() != _SCHEME or not came:
        raise Unauthorized("expected the header Authorization: Bearer <key>")
    presented = came.strip().encode("utf-8", "surrogateescape")
    matches = [hmac.compare_digest(presented, key.get_secret_value().encode()) for key in keys]
    if not any(matches):
        raise Unauthorized("expected a key of notify_keys, came another one")


def authorize_subscribe(auth: Literal["none"], merchant_id: str | None) -> str:
    """Return the merchant that this client may listen to.

    With ``none`` it is the one that the client names: anyone may listen to anyone. This is the
    place where a token, or a header set by nginx, decides instead.

    Raises:
        InvalidMerchantId: it names none.
    """
    assert auth == "none", "the settings know no other way"
    return parse_merchant_id(merchant_id)
