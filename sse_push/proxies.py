"""The proxies before us: whose word about a client counts.

Knows addresses. Does not know what they say, nor in which header.
"""

from __future__ import annotations

import ipaddress
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
        try:
            address = ipaddress.ip_address(peer[0].partition("%")[0])
        except ValueError:
            return False
        # A socket on :: names its IPv4 peers so.
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
