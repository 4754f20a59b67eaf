"""Which backends may notify without a key: those of some addresses that ask by themselves.

Knows addresses, and the headers by which a browser or a proxy is recognized. Does not know what is
notified. Only the call of the old Swoole server needs no key (``swoole_compat``).

An address proves little: a page in a browser on that machine has it too, and so has a proxy there,
whoever asks it. So a request that shows any sign of either is refused. A program on that machine
needs no key either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers

from sse_push.access.hosts import Hosts
from sse_push.access.proxies import Network, Proxies
from sse_push.errors import Forbidden, OriginNotAllowed, RefusalReason

_OF_BROWSERS = ("sec-", "origin", "referer", "cookie", "accept-language", "upgrade-insecure-")
"""How headers begin that browsers send. Accept-Language is on every request of a browser, and a
page can't remove it; Sec-Fetch-Site is missing where the address is neither https nor loopback.

https://fetch.spec.whatwg.org/#http-network-or-cache-fetch
"""

_OF_PROXIES = ("forwarded", "via", "x-forwarded-", "x-real-ip", "x-merchant-id")
"""How headers begin that proxies add."""


class Keyless:
    """Decides which requests may notify without a key, and counts them."""

    def __init__(self, networks: Sequence[Network], hosts: Sequence[str]) -> None:
        """``hosts``: the names that may stand in Host, beside addresses and ``localhost``."""
        self._backends = Proxies(networks, is_unix_socket=False)
        self._hosts = Hosts(hosts)
        self.admitted = 0

    def check(self, peer: tuple[str, int] | None, headers: Headers) -> None:
        """Refuse a request that is not a backend's own; ``peer`` is ASGI's ``client``.

        Raises:
            HostNotAllowed: the request asks for another host: maybe a page had its name lead here.
            OriginNotAllowed: a browser has sent the request.
            Forbidden: a proxy has passed it on, or its address is not one of the networks.
        """
        self._hosts.check(headers.raw)
        if _begins(headers, _OF_BROWSERS):
            raise OriginNotAllowed(
                "expected a request of a backend, got one of a browser",
                reason=RefusalReason.PAGE_NOT_BACKEND,
            )
        if _begins(headers, _OF_PROXIES):
            raise Forbidden(
                "expected a request of a backend, got one by way of a proxy",
                reason=RefusalReason.PROXY_NOT_BACKEND,
            )
        if not self._backends.trusts(peer):
            raise Forbidden(
                "expected a request from trusted_backends (SSE_PUSH_TRUSTED_BACKENDS), got one "
                "from another address",
                reason=RefusalReason.BACKEND_NOT_TRUSTED,
            )
        self.admitted += 1


def _begins(headers: Headers, beginnings: tuple[str, ...]) -> bool:
    return any(name.startswith(beginnings) for name in headers)
