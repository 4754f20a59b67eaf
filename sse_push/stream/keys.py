"""The names of keys in Redis: all of them begin with the service's prefix.

The one place that knows them. Does not know what the keys hold (``contract``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

_PROBE_SIGN = "~"
"""The beginning of the name of a stream that a process writes to find its own entries in it: within
the rights to merchants' streams, and with a character that no merchant's ID has."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a service; two services with different prefixes have none in common."""

    prefix: str
    _begin: str = field(init=False, repr=False)
    _begin_bytes: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_begin", f"{self.prefix}:{{")
        object.__setattr__(self, "_begin_bytes", self._begin.encode())

    def stream(self, merchant_id: str) -> str:
        """Return the key of a merchant's stream; the braces make it one slot of a cluster."""
        return f"{self._begin}{merchant_id}}}"

    def merchant_of(self, key: bytes) -> str | None:
        """Return the merchant whose stream has this key; None if it is another key."""
        if key.startswith(self._begin_bytes) and key.endswith(b"}"):
            return key[len(self._begin_bytes) : -1].decode("utf-8", "replace")
        return None

    @property
    def revocations(self) -> str:
        """The key of the stream of revocations."""
        return f"{self.prefix}:revocations"

    @property
    def bell(self) -> str:
        """The channel on which changes are said where Redis does not announce them; no key."""
        return f"{self.prefix}:bell"

    @property
    def script(self) -> str:
        """The key that a script is tried with; nobody writes it."""
        return f"{self.prefix}:probe:script"

    @property
    def pattern(self) -> str:
        """All of them, as ``ACL SETUSER`` takes them."""
        return f"{self.prefix}:*"


def probe_merchant(name: str) -> str:
    """Return the merchant, who can't exist, to whom the stream of a process belongs."""
    return f"{_PROBE_SIGN}{name}"
