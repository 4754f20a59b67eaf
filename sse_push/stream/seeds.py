"""A cluster, by the nodes that a URL names: where to ask first, and as whom we come to each node.

Knows URLs. Does not know what nodes answer (``slots``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from sse_push.stream.address import Address, Place

_MARK = "+cluster://"
_PORT = 6379


@dataclass(frozen=True, slots=True)
class NodeAddress(Address):
    """One node of a cluster; all of them have the same users."""

    @property
    def needs_primary(self) -> bool:
        """Yes: a replica has no slots."""
        return True

    @property
    def is_of_cluster(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True, slots=True)
class Seeds:
    """The nodes in the URL of a cluster, each of which knows all others."""

    places: tuple[Place, ...]
    likeness: NodeAddress
    """The address of any node, but for its place."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the nodes of a URL that ``settings`` has accepted."""
        scheme, _, _ = url.partition(_MARK)
        parts = urlsplit(url)
        user_and_password, at, hosts = parts.netloc.rpartition("@")
        likeness = NodeAddress.parse(f"{scheme}://{user_and_password}{at}node?{parts.query}")
        return cls(tuple(_place(host) for host in hosts.split(",")), likeness)

    @property
    def has_tls(self) -> bool:
        """Whether the nodes are reached by TLS."""
        return self.likeness.tls is not None

    def at(self, place: Place) -> NodeAddress:
        """Return the address of the node at a place."""
        return replace(self.likeness, host=place.host, port=place.port)


def is_cluster(url: str) -> bool:
    """Whether a URL names the nodes of a cluster."""
    return _MARK in url.partition("?")[0]


def _place(host: str) -> Place:
    parts = urlsplit(f"//{host}")
    assert parts.hostname is not None, "settings refuse a URL without hosts"
    return Place(parts.hostname, parts.port or _PORT)
