"""The keys that stand in settings: what their text means, and how good they have to be.

Knows the form of an entry. Does not know what a key opens (``auth``, ``token``), nor where
settings come from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pydantic import SecretStr

from sse_push.errors import Forbidden

KEY_CHARACTERS_MIN = 16
SECRET_BYTES_MIN = 32
"""As many as the hash of HS256 has: https://www.rfc-editor.org/rfc/rfc7518#section-3.2"""

_MERCHANTS = re.compile(r"[A-Za-z0-9._:-]{1,64}\*?")
# What follows is no padding: a secret in base64 has its = at the end, and then is one as a whole.
_WITH_KID = re.compile(r"([A-Za-z0-9._:-]{1,64})=([^=].*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NotifyKey:
    """A bearer key, and the merchants that it may notify: IDs, or prefixes that end in ``*``.

    No merchants: any.
    """

    secret: SecretStr
    merchants: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``KEY`` or ``KEY 42 43 shop-*``; an error never repeats the key.

        Raises:
            ValueError: the key is short, or not of printable ASCII; what follows is no merchant.
        """
        key, *merchants = text.split(" ") if text else [""]
        if len(key) < KEY_CHARACTERS_MIN or not key.isascii() or not key.isprintable():
            raise ValueError(
                f"each key needs at least {KEY_CHARACTERS_MIN} printable ASCII characters, "
                f"one has {len(key)}; `openssl rand -hex 24` makes a good one"
            )
        named = tuple(merchant for merchant in merchants if merchant)
        if not all(_MERCHANTS.fullmatch(merchant) for merchant in named):
            # Not shown: it may be a key after a comma that was forgotten.
            raise ValueError(
                "expected merchants after a key, as in `KEY 42 shop-*`, got something else"
            )
        return cls(SecretStr(key), named)

    def require(self, merchant_id: str) -> None:
        """Refuse a merchant that this key may not notify.

        Raises:
            Forbidden: the key is for other merchants; which ones is not disclosed.
        """
        if self.merchants and not any(
            merchant_id.startswith(each[:-1]) if each.endswith("*") else merchant_id == each
            for each in self.merchants
        ):
            raise Forbidden(f"expected a key that may notify {merchant_id!r}, got another one")


@dataclass(frozen=True, slots=True)
class TokenSecret:
    """An HMAC secret, which signs tokens and checks them; the text itself is the secret."""

    secret: SecretStr
    kid: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``SECRET`` or ``kid=SECRET``; an error never repeats the secret.

        Raises:
            ValueError: the secret is weak.
        """
        match = _WITH_KID.fullmatch(text)
        kid, secret = (match[1], match[2]) if match is not None else (None, text)
        require_strong(len(secret.encode("utf-8", "surrogateescape")))
        return cls(SecretStr(secret), kid)


def require_strong(secret_bytes: int) -> None:
    """Refuse an HMAC secret that is easier to guess than a token is to forge.

    Raises:
        ValueError: it is shorter than its hash.
    """
    if secret_bytes < SECRET_BYTES_MIN:
        raise ValueError(
            f"each HMAC secret needs at least {SECRET_BYTES_MIN} bytes, one has {secret_bytes}; "
            "`openssl rand -hex 32` makes a good one"
        )
