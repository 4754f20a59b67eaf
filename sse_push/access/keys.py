"""The keys and secrets in the settings: the form of their text, and how strong they must be.

Knows the form of one entry, and the algorithms of tokens. Does not know which request a key
authorizes (``gate``, ``tokens``), nor where settings come from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from pydantic import SecretStr

from sse_push.errors import Forbidden, RefusalReason
from sse_push.notification import NAME_PATTERN

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
"""The algorithms that may sign a token. https://www.rfc-editor.org/rfc/rfc7518#section-3.1"""
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

KEY_CHARACTERS_MIN = 32
"""As many as the hexadecimal digits of 128 random bits."""
_KEY_CHARACTERS_DIFFERENT = 8
"""Of 32 random hexadecimal digits, one time in 30 million fewer are different."""
_SHOWN_CHARACTERS = 8
"""As much is logged of a name that could be a key: three quarters of the key stay unknown."""
SECRET_BYTES_MIN = 32
"""The length of HS256's hash: https://www.rfc-editor.org/rfc/rfc7518#section-3.2"""

_is_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE).fullmatch
_WORD = r"(?:[a-z]+|[A-Z][a-z]+|[A-Z]+)"
_PART = rf"[._:-]*(?:{_WORD}?[0-9]+|{_WORD})"
_is_words = re.compile(rf"{_PART}(?:[._:-]{_PART})*[._:-]*").fullmatch
"""Words and numbers, as in ``shop-berlin-0042``. A random text has letters after digits, and so has
no such form: 32 hexadecimal digits have it one time in a million."""
_MERCHANTS = re.compile(rf"{NAME_PATTERN}\*?")
# The secret must not start with `=`: base64 padding would look like `kid=`.
_WITH_KID = re.compile(rf"({NAME_PATTERN})=([^=].*)", re.DOTALL)


def name_merchant(merchant_id: str) -> str:
    """Return what the log calls a merchant: it may be a key that was sent in its place."""
    try:
        _require_random(merchant_id)
    except ValueError:
        return f"merchant {merchant_id}"
    return f"merchant {merchant_id[:_SHOWN_CHARACTERS]}…"


@dataclass(frozen=True, slots=True)
class NotifyKey:
    """A bearer key, and the merchants that it may notify: IDs, or prefixes that end in ``*``.

    A key without merchants may notify all of them. ``place`` is its place in ``notify_keys``, from
    1, by which the log names it.
    """

    secret: SecretStr
    merchants: tuple[str, ...] = ()
    place: int = field(default=1, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``KEY`` or ``KEY 42 43 shop-*``; an error never repeats the key.

        Raises:
            ValueError: the key is short or not printable ASCII, or a merchant is malformed.
        """
        key, *merchants = text.split(" ") if text else [""]
        _require_random(key)
        named = tuple(merchant for merchant in merchants if merchant)
        if not all(_MERCHANTS.fullmatch(merchant) for merchant in named):
            # The text is not shown: it may be another key whose comma was forgotten.
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
            raise Forbidden(
                f"expected a key that may notify {merchant_id!r}, got another one",
                reason=RefusalReason.MERCHANT_NOT_OF_KEY,
                who=f"{self.name}, {name_merchant(merchant_id)}",
            )

    @property
    def name(self) -> str:
        """What the log calls the key."""
        return f"key {self.place}"


@dataclass(frozen=True, slots=True)
class TokenSecret:
    """An HMAC secret, which signs and checks tokens; the text itself is the secret."""

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


def _require_random(key: str) -> None:
    """Refuse a key that may be guessed, or is none.

    In ``KEY 42, 43`` the second merchant would be a key, and one for all merchants.

    Raises:
        ValueError: the key is short, or looks like the name of a merchant.
    """
    if _is_uuid(key) or _is_words(key):
        raise ValueError(
            "expected random keys, got one that looks like the name of a merchant, which stands "
            "behind its key and without a comma, as in `KEY 42 shop-*`; "
            "`openssl rand -hex 24` makes a good key"
        )
    if len(key) < KEY_CHARACTERS_MIN or not key.isascii() or not key.isprintable():
        raise ValueError(
            f"expected keys of at least {KEY_CHARACTERS_MIN} printable ASCII characters, got "
            f"one of {len(key)}; `openssl rand -hex 24` makes a good key"
        )
    if len(set(key)) < _KEY_CHARACTERS_DIFFERENT:
        raise ValueError(
            f"expected keys of at least {_KEY_CHARACTERS_DIFFERENT} different characters, got one "
            f"of {len(set(key))}; `openssl rand -hex 24` makes a good key"
        )


def require_strong(secret_bytes: int) -> None:
    """Refuse an HMAC secret that is easier to guess than a signature.

    Raises:
        ValueError: the secret is shorter than its hash.
    """
    if secret_bytes < SECRET_BYTES_MIN:
        raise ValueError(
            f"expected HMAC secrets of at least {SECRET_BYTES_MIN} bytes, got one of "
            f"{secret_bytes}; `openssl rand -hex 32` makes a good secret"
        )
