"""The trusted proxies in front of the service, and the address of a client behind them.

Knows addresses and ``X-Forwarded-For``. Does not know which other headers a proxy sets.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")
"""``[2001:db8::1]``, ``[2001:db8::1]:4711`` and ``192.0.2.1:4711``, as some proxies write."""


OWS = " \t"
"""White space around the value of a header: nothing else is trimmed, as browsers keep the rest.

https://www.rfc-editor.org/rfc/rfc9110#section-5.6.3
"""


class Proxies:
    """The peers whose headers are trusted: some networks, and every peer of our Unix socket."""

    def __init__(self, networks: Sequence[Network], *, is_unix_socket: bool) -> None:
        self._networks = networks
        self._is_unix_socket = is_unix_socket

    def trusts(self, peer: tuple[str, int] | None) -> bool:
        """Return whether a peer, ASGI's ``client``, is a trusted proxy.

        A peer without an address is trusted only if the service listens on a Unix socket: over TCP
        the connection broke before its address was read.

        https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope
        """
        if peer is None:
            return self._is_unix_socket
        address = _parse(peer[0])
        return address is not None and any(address in network for network in self._networks)

    def client_address(
        self, peer: tuple[str, int] | None, forwarded_for: Sequence[str]
    ) -> str | None:
        """Return what identifies a client: its IPv4 address, or the /64 of its IPv6 address.

        ``forwarded_for`` has each value of the header. Of a trusted proxy the last address counts,
        which the proxy itself has added; a client may have sent those before it. Of any other peer
        the header does not count. None: the address is missing or malformed.

        https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
        """
        text = None if peer is None else peer[0]
        if self.trusts(peer):
            text = forwarded_for[-1].rpartition(",")[2] if forwarded_for else None
        address = None if text is None else _parse(text.strip(OWS))
        if isinstance(address, ipaddress.IPv6Address):
            # A client has a whole /64, and could use another address for each connection.
            # https://www.rfc-editor.org/rfc/rfc6177#section-2
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        return None if address is None else str(address)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match["v6"] or match["v4"] or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket that listens on :: sees IPv4 peers as ::ffff:192.0.2.1.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
