"""What is examined, and with which credentials.

Knows the addresses of the endpoints. Does not know HTTP.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from sse_push.errors import ConfigError
from sse_push.http import paths

MERCHANT = "sse-push-doctor"
"""The merchant that is asked for where nothing else names one."""

_PORTS = {"http": 80, "https": 443}
_CREDENTIALS = ("merchant_id", "token")
"""The parameters of a query that are given again, or left out."""


@dataclass(frozen=True, slots=True)
class Address:
    """An absolute URL in its parts; ``base`` is what stands before the path of an endpoint."""

    scheme: str
    host: str
    port: int
    base: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URL as people have it: of the site, or of its event stream, with its query.

        Raises:
            ConfigError: the text is no URL of http or https.
        """
        error = ConfigError(f"expected a URL, as in https://push.example, got {text[:200]!r}")
        try:
            parts = urlsplit(text)
            port = parts.port or _PORTS.get(parts.scheme, 0)
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError as exc:
            raise error from exc
        if parts.scheme not in _PORTS or not host or parts.username is not None:
            raise error
        path = quote(parts.path, safe="/%~:@!$&'()*+,;=").rstrip("/").removesuffix(paths.EVENTS)
        return cls(parts.scheme, host, port, path, tuple(parse_qsl(parts.query)))

    @property
    def is_tls(self) -> bool:
        """Whether it begins with https."""
        return self.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether it is of this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def netloc(self) -> str:
        """The value of the header Host, as a browser sends it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of a page of this address."""
        return f"{self.scheme}://{self.netloc}"

    def __str__(self) -> str:
        return f"{self.origin}{self.base}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The service to examine: where browsers reach it, and what they show."""

    address: Address
    merchant_id: str | None = None
    token: str | None = None
    cookies: tuple[str, ...] = ()
    """Each ``name=value``."""
    origin: str | None = None
    """The origin of the pages, if it is another one."""
    notify_address: Address | None = None
    key: str | None = None
    timeout_s: float = 10.0
    """How long an answer, or an event that was caused, may take."""
    wait_s: float | None = None
    """How long to listen; None: two heartbeats."""
    ca_file: str | None = None
    """Certificates to believe, beside those that this system believes."""

    @classmethod
    def of(cls, url: str, **options: object) -> Target:
        """Read a URL; a merchant and a token in its query count unless they are given."""
        address = Address.parse(url)
        query = dict(address.query)
        given = {name: value for name, value in options.items() if value is not None}
        found = {name: query[name] for name in _CREDENTIALS if name in query}
        target = cls(address=address, **{**found, **given})  # type: ignore[arg-type]  # as given
        if target.merchant_id is None and target.token is None and not target.cookies:
            return replace(target, merchant_id=MERCHANT)
        return target

    def trust(self, *protocols: str) -> ssl.SSLContext:
        """Return who is believed, in a connection that offers these protocols.

        Raises:
            ConfigError: ``ca_file`` has no certificates.
        """
        context = ssl.create_default_context()
        context.set_alpn_protocols(protocols)
        if self.ca_file is not None:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as exc:
                raise ConfigError(f"--ca-file: expected certificates in PEM, got {exc}") from exc
        return context

    def events_path(self, *, with_token: bool) -> str:
        """Return path and query of the event stream; an EventSource has its token in the query."""
        query = [pair for pair in self.address.query if pair[0] not in _CREDENTIALS]
        if self.merchant_id is not None:
            query.append(("merchant_id", self.merchant_id))
        if with_token and self.token is not None:
            query.append(("token", self.token))
        path = f"{self.address.base}{paths.EVENTS}"
        return f"{path}?{urlencode(query)}" if query else path
