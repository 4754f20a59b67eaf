"""The proxies before us: whose word about a client counts, and which address it has.

Knows addresses and ``X-Forwarded-For``. Does not know what else a proxy says.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """Who may speak for their clients: some networks, and whoever reaches our Unix socket."""

    def __init__(self, networks: Sequence[Network], *, is_unix_socket: bool) -> None:
        self._networks = networks
        self._is_unix_socket = is_unix_socket

    def trust(self, peer: tuple[str, int] | None) -> bool:
        """Return whether the other end of a connection, ASGI's ``client``, is one of them.

        A peer without an address is one only where we listen on a Unix socket: over TCP it is a
        connection that broke before it was looked at.

        https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope
        """
        if peer is None:
            return self._is_unix_socket
        address = _parse(peer[0])
        return address is not None and any(address in network for network in self._networks)

    def client_address(
        self, peer: tuple[str, int] | None, forwarded_for: Sequence[str]
    ) -> str | None:
        """Return what to know a client again by: its IPv4 address, or the /64 of its IPv6 address.

        ``forwarded_for``: each value of the header. If the peer is one of these proxies, its own
        word is the last, whatever a client has put before it. None: it has not said, or not an
        address.

        https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
        """
        text = None if peer is None else peer[0]
        if self.trust(peer):
            text = forwarded_for[-1].rpartition(",")[2] if forwarded_for else None
        address = None if text is None else _parse(text.strip())
        if isinstance(address, ipaddress.IPv6Address):
            # A client has a whole /64, and could come from another address each time.
            # https://www.rfc-editor.org/rfc/rfc6177#section-2
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        return None if address is None else str(address)


_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")
"""As some proxies write it."""


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match["v6"] or match["v4"] or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket on :: names its IPv4 peers so.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
