"""The names by which the service may be asked: the header Host of a request.

Knows host names. Does not know which addresses are listened to, nor who may listen or notify.

A page of a stranger's site may have its name lead to the address of the service, and its browser
then lets the page read the answers, as those of its own site (DNS rebinding). Only the name in Host
shows that. A page can't do so without a name, nor with ``localhost``, which leads nowhere else.

https://www.rfc-editor.org/rfc/rfc9110#section-7.2
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sse_push.errors import HostNotAllowed

ANY = "*"

_SHOWN_CHARACTERS = 80
_PASSED_MAX = 64
_PASSED_BYTES = 256
"""The longest value that is remembered, of a name of up to 253 characters."""

_PORT = rb"(?::[0-9]*)?"
_is_local = re.compile(
    rb"(?:[0-9]+(?:\.[0-9]+){3}|\[[0-9a-f:.]+\]|(?:[a-z0-9-]+\.)*localhost)?" + _PORT,
    re.IGNORECASE,
).fullmatch
"""An IP address, ``localhost``, a name below it, or nothing: https://www.rfc-editor.org/rfc/rfc6761
"""
_is_name = re.compile(rb"((?:[a-z0-9_-]+\.)*[a-z0-9_-]+)\.?" + _PORT, re.IGNORECASE).fullmatch


class Hosts:
    """The names that may stand in Host beside addresses and ``localhost``; or any (``*``).

    ``*.shop.example`` is any name of one label more.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(name.encode() for name in allowed)
        self._is_any = ANY in allowed
        self._passed: set[bytes] = set()
        """The values that were allowed lately: a site has few, and each of its requests has one."""

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a request with another host; one without Host passes, since no browser sends it.

        Raises:
            HostNotAllowed: a name in Host is not allowed.
        """
        if self._is_any:
            return
        for name, value in headers:
            if name == b"host" and value not in self._passed:
                self._require(value)

    def _require(self, value: bytes) -> None:
        if not (_is_local(value) or self._allows(value)):
            shown = ascii(value.decode("latin-1"))[:_SHOWN_CHARACTERS]
            raise HostNotAllowed(
                f"expected a host of allowed_hosts (SSE_PUSH_ALLOWED_HOSTS), got {shown}",
                who=f"host {value.decode()}" if _is_name(value) else "a malformed host",
            )
        if len(self._passed) < _PASSED_MAX and len(value) < _PASSED_BYTES:
            self._passed.add(value)

    def _allows(self, value: bytes) -> bool:
        match = _is_name(value)
        if match is None:
            return False
        host = match[1].lower()
        return host in self._allowed or b"*." + host.partition(b".")[2] in self._allowed
