"""The settings of one process: names, units, defaults, ranges, and contradictions.

Built once, by ``cli``, and passed in. No other module reads a setting from the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from sse_push.access.keys import ALGORITHMS, Algorithm, NotifyKey, TokenSecret
from sse_push.errors import ConfigError
from sse_push.runtime.env_file import EnvFile
from sse_push.runtime.secret_files import read_secrets
from sse_push.runtime.variables import (
    FILES_OF_SECRETS,
    HOST,
    OF_CLIENTS,
    PORT,
    PREFIX,
    SECRETS_DIR,
    of_kubernetes,
)

_NETWORK_BITS_MIN = 8
"""The widest private networks are 10.0.0.0/8 and fd00::/8."""

_SENTINEL = "+sentinel"
_CLUSTER = "+cluster"
_SCHEMES = (
    *("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://"),
    *("redis+cluster://", "rediss+cluster://"),
)

_SEEDS_MAX = 64
"""So many nodes of a cluster may be named; one that answers is enough."""

_SENTINELS_MAX = 16
"""All of them are asked before each connection."""

_TEXT = (".+", "a text")
REDIS_OPTIONS = {
    "db": ("[0-9]{1,9}", "a number"),
    "socket_connect_timeout": ("[1-9][0-9]{0,4}", "seconds, from 1"),
}
REDISS_OPTIONS = {
    **REDIS_OPTIONS,
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required"),
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": ("true|false", "true or false"),
    "ssl_keyfile": _TEXT,
    "ssl_password": _TEXT,
}
"""What may stand in the query of ``redis_url``, and its form. Any other option would change how
replies are read, or when a connection is made anew, which the service decides."""


def _list_of(parse: Callable[[str], object], word: str | None = None) -> BeforeValidator:
    """Read a comma-separated text as a tuple; the text ``word`` stays as it is."""

    def split(value: object) -> object:
        if not isinstance(value, str) or value == word:
            return value
        return tuple(parse(item.strip()) for item in value.split(","))

    return BeforeValidator(split)


def _origin(text: str) -> str:
    """Return an origin that is written as browsers write it, or ``*``.

    The origin of an app, such as ``capacitor://localhost``, is compared as it is written.

    https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
    """
    match = _ORIGIN.fullmatch(text)
    is_of_web = match is not None and (match["scheme"], match["port"]) not in _DEFAULT_PORTS
    if text == "*" or is_of_web or _APP_ORIGIN.fullmatch(text):
        return text
    raise ValueError(
        "expected origins as browsers send them, in lower case, without a default port or a "
        "path, as in https://app.example, https://*.shop.example or capacitor://localhost; "
        f"got {text!r}"
    )


def _host(text: str) -> str:
    """Return a name as it stands in the header Host, or ``*``."""
    if text == "*" or _HOST.fullmatch(text):
        return text
    raise ValueError(
        "expected hosts in lower case and without a port, as in push.example or *.shop.example; "
        f"got {text!r}"
    )


_WILDCARD = r"(?:\*\.(?=localhost(?![^:])|[^:]*\.[^:.]))?"
"""A first label ``*.``; behind it stands more than a top-level domain."""
_ORIGIN = re.compile(
    rf"(?P<scheme>https?)://(?:{_WILDCARD}[a-z0-9._-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = {("http", "80"), ("https", "443")}
_APP_ORIGIN = re.compile(r"(?!(?:https?|wss?|ftp|file):)[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+")
"""An app's own scheme, and its name there; of the others no page sends such an origin."""
_HOST = re.compile(rf"{_WILDCARD}[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_COOKIE_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
"""A token of RFC 9110: https://www.rfc-editor.org/rfc/rfc6265#section-4.1.1"""

NotifyKeys = Annotated[
    tuple[NotifyKey, ...] | Literal["none"], NoDecode, _list_of(NotifyKey.parse, "none")
]
TokenSecrets = Annotated[tuple[TokenSecret, ...], NoDecode, _list_of(TokenSecret.parse)]
Algorithms = Annotated[tuple[Algorithm, ...], NoDecode, _list_of(str)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = Annotated[
    tuple[Network, ...],
    NoDecode,
    _list_of(ipaddress.ip_network),
]
HostList = Annotated[tuple[str, ...], NoDecode, _list_of(_host)]
OriginList = Annotated[tuple[str, ...], NoDecode, _list_of(_origin)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_hosts(url: SplitResult, most: int, kind: str, example: str) -> None:
    hosts = url.netloc.rpartition("@")[2].split(",")
    if len(hosts) > most:
        raise ValueError(f"expected at most {most} {kind}s, got {len(hosts)}")
    for host in hosts:
        try:
            parts = urlsplit(f"//{host}")
            _ = parts.port
        except ValueError:
            raise ValueError(f"expected each {kind} as HOST:PORT, got something else") from None
        if not parts.hostname:
            raise ValueError(f"expected a host of each {kind}, as in {example}, got none")


def _require_sentinels(url: SplitResult) -> None:
    _require_hosts(url, _SENTINELS_MAX, "Sentinel", "sentinel-1:26379")
    if not re.fullmatch("/[A-Za-z0-9._%-]+", url.path):
        raise ValueError(
            "expected the name of a service behind the Sentinels, as in /mymaster, and a database "
            "as ?db=1"
        )


def _require_nodes(url: SplitResult) -> None:
    _require_hosts(url, _SEEDS_MAX, "node", "node-1:6379")
    if url.path.strip("/"):
        raise ValueError("expected nothing behind the nodes: a cluster has one database")


def _require_place(url: SplitResult) -> None:
    """Refuse a URL that names no server, or no database: the library would take another one."""
    if url.scheme.endswith(_CLUSTER):
        _require_nodes(url)
        return
    if url.scheme.endswith(_SENTINEL):
        _require_sentinels(url)
        return
    if url.scheme == "unix":
        if not url.path:
            raise ValueError("expected a path, as in unix:///run/redis.sock, got none")
        return
    try:
        _ = url.port
    except ValueError:
        raise ValueError("expected a number as the port, got something else") from None
    if not url.hostname:
        raise ValueError("expected a host, as in redis://127.0.0.1:6379/0, got none")
    if not re.fullmatch("/?[0-9]*", url.path):
        raise ValueError("expected the number of a database behind the host, as in /0")


def _require_options(url: SplitResult) -> None:
    options = REDISS_OPTIONS if url.scheme.startswith("rediss") else REDIS_OPTIONS
    if url.scheme.endswith(_CLUSTER):
        options = {name: form for name, form in options.items() if name != "db"}
    known = ", ".join(options)
    for name, text in parse_qsl(url.query, keep_blank_values=True):
        if name not in options:
            raise ValueError(
                f"expected no option but {known} with {url.scheme}://, got {name[:40]!r}"
            )
        form, words = options[name]
        if not re.fullmatch(form, text):
            raise ValueError(f"expected the option {name} as {words}, got something else")


class Settings(BaseSettings):
    """Settings from ``SSE_PUSH_*``, files and flags; an unknown name is an error.

    Durations are seconds (``_s``) or milliseconds (``_ms``), sizes bytes (``_bytes``).
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(HOST, description="address to listen on; nginx is meant to stand in front")
    port: int = Field(PORT, ge=0, le=65535, description="port to listen on; 0: any free port")
    uds: str | None = Field(
        None, description="Unix socket to listen on, instead of `host` and `port`"
    )
    uds_mode: str = Field(
        "0666",
        pattern="^0?[67][0-7]{2}$",
        description="mode of the file `uds`, in octal: who may connect, of those who may enter its "
        "folder; `0660`, the socket's group only",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="`redis://`, `rediss://` or `unix://` URL of Redis or Valkey, or of Sentinels: "
        "`redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`, `rediss+sentinel://`, or of nodes of a "
        "cluster: `redis+cluster://HOST:PORT,HOST:PORT`, `rediss+cluster://`; its query may have "
        "`db`, `socket_connect_timeout` (seconds) and options of TLS (`ssl_ca_certs`, …)",
    )
    sentinel_user: str | None = Field(
        None, description="user as whom the Sentinels of `redis_url` are asked; unset: `default`"
    )
    sentinel_password: SecretStr | None = Field(
        None,
        description="password that the Sentinels of `redis_url` ask for, if any. The user and the "
        "password in `redis_url` are those of the primary",
    )
    workers: int = Field(1, ge=1, le=256, description="processes that share the listening socket")
    subscribe_auth: Literal["none", "token", "header"] | None = Field(
        None,
        description="who may open an event stream: `token`, clients with a token; `header`, "
        "clients whose merchant a trusted proxy names; `none`, anyone. Required",
    )
    notify_keys: NotifyKeys | None = Field(
        None,
        description="bearer keys for `POST /notify` and `/revoke`, comma-separated, each with the "
        "merchants that it is limited to, if any: `KEY 42 shop-*`. A key is random, as `openssl "
        "rand -hex 24` makes it, and has 32 characters or more. `none`: no key is needed. Required",
    )
    token_keys: TokenSecrets = Field(
        (),
        description="HMAC secrets that verify tokens, comma-separated, each `SECRET` or "
        "`kid=SECRET`",
    )
    token_keys_file: Path | None = Field(
        None, description="file of keys that verify tokens: a JWK Set, or public keys in PEM"
    )
    token_algorithms: Algorithms = Field(
        ("HS256",),
        min_length=1,
        description="accepted signature algorithms of tokens, comma-separated: "
        + ", ".join(ALGORITHMS),
    )
    token_audience: str | None = Field(
        None,
        min_length=1,
        description="value that a token's `aud` must contain; unset: a token must have no `aud`",
    )
    token_issuer: str | None = Field(
        None, min_length=1, description="value that a token's `iss` must have; unset: any"
    )
    token_leeway_s: float = Field(
        5.0,
        ge=0,
        le=60,
        description="how far a token's `iat` and `nbf` may be ahead of this clock; `exp` has no "
        "leeway",
    )
    token_max_lifetime_s: float = Field(
        3600.0, ge=1, le=86_400, description="longest lifetime of a token; longer ones are refused"
    )
    token_expiring_s: float = Field(
        30.0,
        ge=0.1,
        le=3600,
        description="how long before a token's `exp` an `expiring` event is sent; at half of the "
        "remaining time if that is later",
    )
    token_cookie: str | None = Field(
        None,
        pattern=_COOKIE_NAME,
        description="cookie from which a token is read, such as `__Host-push`; unset: no cookie is "
        "read",
    )
    trusted_proxies: Networks = Field(
        (),
        description="proxies whose headers name a client's merchant and address, comma-separated "
        "IPs and CIDRs; every peer on `uds` is trusted",
    )
    swoole_compat: Literal["off", "on"] = Field(
        "off",
        description="`on`: `GET /?merchantId=42` from `trusted_backends` notifies, without a key, "
        "as the old Swoole server was asked",
    )
    trusted_backends: Networks = Field(
        tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128"))),
        description="backends that may ask in this way, comma-separated IPs and CIDRs; their own "
        "addresses, and never those that a proxy names. Needs `swoole_compat`",
    )
    allowed_hosts: HostList | None = Field(
        None,
        description="names that may stand in the header `Host` of a request, comma-separated, such "
        "as `push.example` or `*.shop.example`; addresses and `localhost` always may; `*`: any "
        "name. Unset: any, but no name if anyone may listen or notify, `host` is a loopback "
        "address, and neither `uds` nor `trusted_proxies` is set",
    )
    allowed_origins: OriginList = Field(
        (),
        description="other origins whose pages may open an event stream, comma-separated, as "
        "browsers send them: `https://app.example`, `https://*.shop.example` (one label), "
        "`capacitor://localhost`; `*`: any",
    )

    max_connections: int = Field(
        15_000,
        ge=1,
        le=1_000_000,
        description="maximum number of connections per process; each takes 17 KiB (the default 250 "
        "MiB) and a file descriptor",
    )
    max_connections_per_merchant: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="maximum number of connections of one merchant per process; two thirds of "
        "`max_connections` leave room for other merchants; 0: no limit",
    )
    max_merchants_per_connection: int = Field(
        16,
        ge=1,
        le=64,
        description="maximum number of merchants of one connection; with 16 the longest names, "
        "their positions and the longest token still fit into a request line that nginx accepts "
        "by default",
    )
    max_connections_per_address: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="maximum number of connections from one client address per process; 0: no "
        "limit, since everyone in an office, and every client of a proxy that is not "
        "trusted, shares one address",
    )
    header_limit_bytes: int = Field(
        16_384,
        ge=1024,
        le=1_048_576,
        description="maximum size of the request line and headers of a request; twice what nginx "
        "accepts by default for one header",
    )
    request_timeout_s: float = Field(
        10.0,
        ge=0.1,
        le=600,
        description="longest time from the first byte of a request to its last, body included",
    )

    heartbeat_s: float = Field(
        15.0, ge=0.2, le=300, description="longest silence before a `heartbeat` event is written"
    )
    refresh_interval_ms: int = Field(
        100,
        ge=1,
        le=60_000,
        description="shortest time between two writes to the connections of one merchant",
    )
    retry_ms: int = Field(
        2000,
        ge=100,
        le=20_000,
        description="reconnection time sent to browsers, ± 50 % per connection",
    )
    soft_retry_min_ms: int = Field(
        5000,
        ge=100,
        le=30_000,
        description="shortest reconnection time sent to a client that is asked to come back later",
    )
    soft_retry_max_ms: int = Field(
        30_000,
        ge=100,
        le=30_000,
        description="longest reconnection time sent to a client that is asked to come back later",
    )
    poll_interval_s: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="time after which a client that polls is told to poll again, ± 50 %",
    )
    max_connection_age_s: float = Field(
        900.0,
        ge=1,
        le=86_400,
        description="age at which a connection is ended and its client reconnects, ± 20 % per "
        "connection",
    )
    send_timeout_s: float = Field(
        15.0,
        ge=0.2,
        le=300,
        description="a client that accepts no bytes for this long is disconnected",
    )
    send_buffer_bytes: int = Field(
        16_384,
        ge=4096,
        le=4_194_304,
        description="size of the kernel's send buffer per connection, which bounds what a sleeping "
        "client finds waiting",
    )
    tcp_user_timeout_ms: int = Field(
        30_000,
        ge=1000,
        le=600_000,
        description="a peer that acknowledges no bytes for this long is disconnected",
    )
    listen_backlog: int = Field(
        4096, ge=16, le=65_535, description="maximum number of connections that wait to be accepted"
    )
    run_folder: Path | None = Field(
        None,
        description="folder below which the workers share their state while they run; unset: that "
        "of the system for temporary files (`TMPDIR`)",
    )
    start_limit_s: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="longest time until a new worker accepts connections; then it is killed",
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="how long the service goes on serving after SIGTERM, while `/readyz` is 503, "
        "until a load balancer sends nothing more; a second SIGTERM ends that",
    )
    drain_s: float = Field(
        20.0,
        ge=0,
        le=3600,
        description="longest time over which connections are ended after SIGTERM",
    )

    notify_timeout_s: float = Field(
        3.0,
        ge=0.1,
        le=60,
        description="longest time until `POST /notify` and `/revoke` are answered",
    )
    notify_max_items: int = Field(
        1000, ge=1, le=10_000, description="maximum number of notifications in one JSON array"
    )
    notify_rate_per_s: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="notifications and revocations per second that one key may send, over all "
        "workers; 0: no limit, since notifications merge",
    )
    notify_burst: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="notifications and revocations that one key may send at once after a pause; "
        "the default is one full array",
    )
    body_limit_bytes: int = Field(
        1_048_576,
        ge=1024,
        le=67_108_864,
        description="maximum size of a body of `POST /notify` and `/revoke`; nginx must agree",
    )
    data_limit_bytes: int = Field(
        8192,
        ge=0,
        le=1_048_576,
        description="maximum size of the `data` of one notification, as compact JSON",
    )
    key_prefix: str = Field(
        "sse_push",
        max_length=64,
        pattern="^[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*$",
        description="beginning of every key in Redis, as in `sse_push:{42}`: services with "
        "different prefixes share a Redis and hear nothing of each other",
    )
    bell: Literal["auto", "tracking", "pubsub"] = Field(
        "auto",
        description="how workers hear of changes: `tracking`: Redis announces them (`CLIENT "
        "TRACKING`); `pubsub`: the workers that add entries say so (`PUBLISH`); `auto`: tracking, "
        "and PUBLISH where Redis answers `CLIENT TRACKING` with an error; the same for all "
        "services that share streams",
    )
    sweep_s: float | None = Field(
        None,
        ge=1,
        le=3600,
        description="within this time every stream is read once without a cause; it costs "
        "a read per merchant, worker and round; unset: 30, and 15 with PUBLISH",
    )
    wait_replicas: int = Field(
        0,
        ge=0,
        le=16,
        description="`POST /notify` and `/revoke` are answered 200 only when so many replicas of "
        "Redis have the entry, and 503 `unknown` if they don't within `notify_timeout_s`; 0: "
        "without asking",
    )
    stream_max_entries: int = Field(
        100, ge=1, le=1_000_000, description="approximate number of entries kept per merchant"
    )
    stream_ttl_s: float = Field(
        604_800.0,
        ge=1,
        le=31_536_000,
        description="how long a merchant's stream is kept after its last entry",
    )
    max_planted: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="maximum number of merchants per worker whose missing stream gets an entry "
        "that says nothing, so that their browsers have a last event ID; 0: none",
    )
    probe_interval_s: float = Field(
        3.0,
        ge=0.05,
        le=60,
        description="time between the beginnings of two probes; a probe is an entry that the "
        "worker adds as a notification is added, and must find",
    )
    probe_deadline_s: float = Field(
        6.0,
        ge=0.1,
        le=120,
        description="longest time until a probe is found; then the worker is not ready, and "
        "reconnects",
    )
    deaf_limit_s: float = Field(
        20.0,
        ge=0.2,
        le=3600,
        description="a worker ends itself if no probe is found for this long, in whole probes of "
        "`probe_deadline_s` (four of 6 s: 24 s), while the worker runs, although Redis accepts the "
        "probes",
    )
    loop_stall_limit_s: float = Field(
        5.0,
        ge=0.5,
        le=300,
        description="a worker ends itself if its event loop is blocked for this long, and is "
        "killed if its process stands still for as long, or for 5 s if that is longer",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )
    log_format: Literal["logfmt", "json"] = Field(
        "logfmt", description="format of log lines: `logfmt` or `json`"
    )

    @field_validator("notify_keys")
    @classmethod
    def _keys_differ(cls, value: NotifyKeys | None) -> NotifyKeys | None:
        keys = value if isinstance(value, tuple) else ()
        if len({key.secret.get_secret_value() for key in keys}) != len(keys):
            raise ValueError("expected each key once, got one twice")
        placed = tuple(replace(key, place=place) for place, key in enumerate(keys, 1))
        return placed or value

    @field_validator("redis_url")
    @classmethod
    def _scheme_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            # No error shows the URL: it has a password, maybe in the wrong place.
            url = value.get_secret_value()
            if not url.startswith(_SCHEMES):
                raise ValueError(f"expected {', '.join(_SCHEMES)}; got another scheme")
            try:
                parts = urlsplit(url)
            except ValueError:
                raise ValueError("expected a URL, got one that can't be parsed") from None
            if "@" in parts.path + parts.query + parts.fragment and parts.scheme != "unix":
                raise ValueError("expected / ? # in a password as %2F %3F %23, got one as it is")
            _require_place(parts)
            _require_options(parts)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        contradictions = [
            (
                self.heartbeat_s * 2 > self.max_connection_age_s,
                f"max_connection_age_s ({self.max_connection_age_s:g}) must be at least two "
                f"heartbeats (heartbeat_s is {self.heartbeat_s:g})",
            ),
            (
                self.soft_retry_min_ms > self.soft_retry_max_ms,
                f"soft_retry_min_ms ({self.soft_retry_min_ms}) must not be above "
                f"soft_retry_max_ms ({self.soft_retry_max_ms})",
            ),
            (
                self.probe_deadline_s < self.probe_interval_s,
                f"probe_deadline_s ({self.probe_deadline_s:g}) must not be below "
                f"probe_interval_s ({self.probe_interval_s:g})",
            ),
            (
                self.deaf_limit_s < self.probe_deadline_s,
                f"deaf_limit_s ({self.deaf_limit_s:g}) must not be below "
                f"probe_deadline_s ({self.probe_deadline_s:g})",
            ),
            (
                self.data_limit_bytes > self.body_limit_bytes,
                f"data_limit_bytes ({self.data_limit_bytes}) must not be above "
                f"body_limit_bytes ({self.body_limit_bytes})",
            ),
            (
                any(self.sentinel_login) and not self._has_sentinels,
                "sentinel_user and sentinel_password need a redis_url of Sentinels: "
                "redis+sentinel://HOST:PORT/SERVICE",
            ),
            *self._contradictions_of_tokens(),
            *self._contradictions_of_reach(),
            *self._contradictions_of_swoole(),
        ]
        for is_contradiction, text in contradictions:
            if is_contradiction:
                raise ValueError(text)
        return self

    def _contradictions_of_tokens(self) -> list[tuple[bool, str]]:
        has_keys = bool(self.token_keys) or self.token_keys_file is not None
        return [
            (
                self.subscribe_auth == "token" and not has_keys,
                "subscribe_auth (token) needs keys that verify tokens: token_keys or "
                "token_keys_file",
            ),
            (
                self.subscribe_auth in ("none", "header") and has_keys,
                f"subscribe_auth ({self.subscribe_auth}) must be token if token_keys or "
                "token_keys_file is set",
            ),
            (
                bool(self.token_keys) and "HS256" not in self.token_algorithms,
                "token_keys need HS256, which is missing in token_algorithms "
                f"({','.join(self.token_algorithms)})",
            ),
        ]

    def _contradictions_of_reach(self) -> list[tuple[bool, str]]:
        return [
            (
                self.uds is not None and {"host", "port"} & self.model_fields_set != set(),
                "uds replaces host and port: set one or the other",
            ),
            (
                self.uds is None and "uds_mode" in self.model_fields_set,
                "uds_mode needs uds: no other socket has a mode",
            ),
            (
                self.subscribe_auth == "header" and self.uds is None and not self.trusted_proxies,
                "subscribe_auth (header) needs trusted_proxies or uds: otherwise any client could "
                "set the header",
            ),
            (
                self.subscribe_auth == "header" and self.trusts_all_addresses,
                f"trusted_proxies ({_text(self.trusted_proxies)}) must name the proxies if "
                "subscribe_auth is header: otherwise any client could set the header",
            ),
            (
                "*" in (self.allowed_hosts or ()) and self.allowed_hosts != ("*",),
                "allowed_hosts: expected * or a list, got both",
            ),
            (
                "*" in self.allowed_origins and len(self.allowed_origins) > 1,
                "allowed_origins: expected * or a list, got both",
            ),
            (
                "*" in self.allowed_origins
                and (self.token_cookie is not None or self.subscribe_auth == "header"),
                "allowed_origins (*) must be a list if cookies decide who may listen "
                "(token_cookie, subscribe_auth=header)",
            ),
        ]

    def _contradictions_of_swoole(self) -> list[tuple[bool, str]]:
        return [
            (
                self.swoole_compat == "on" and self.uds is not None,
                "swoole_compat (on) needs host and port: who connects to uds has no address",
            ),
            (
                self.swoole_compat == "off" and "trusted_backends" in self.model_fields_set,
                "trusted_backends needs swoole_compat (on): otherwise each backend has a key",
            ),
            (
                _is_wide(self.trusted_backends),
                f"trusted_backends ({_text(self.trusted_backends)}) must name the backends: "
                "otherwise anyone could notify without a key",
            ),
        ]

    @property
    def sentinel_login(self) -> tuple[str, str]:
        """The user and the password by which Sentinels are asked, each empty if it is not set."""
        password = self.sentinel_password
        return self.sentinel_user or "", "" if password is None else password.get_secret_value()

    @property
    def _has_sentinels(self) -> bool:
        url = "" if self.redis_url is None else self.redis_url.get_secret_value()
        return urlsplit(url).scheme.endswith(_SENTINEL)

    @property
    def has_tokens(self) -> bool:
        """Whether tokens decide who may listen."""
        return self.subscribe_auth == "token"

    @property
    def trusts_all_addresses(self) -> bool:
        """Whether ``trusted_proxies`` has a network wider than any of one owner."""
        return _is_wide(self.trusted_proxies)

    @property
    def is_open(self) -> bool:
        """Whether anyone may listen to any merchant, and notify."""
        return self.subscribe_auth == "none" and self.notify_keys == "none"

    @property
    def is_open_to_network(self) -> bool:
        """Whether anyone may do so from another machine."""
        return self.is_open and self.uds is None and not _is_loopback(self.host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that may stand in Host, beside addresses and ``localhost``; ``*``: any.

        Where a page of a stranger's site needs a credential, its name does not matter. A service
        that others reach has names that it does not know, and so has one behind a proxy.
        """
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        is_open = "none" in (self.subscribe_auth, self.notify_keys) or self.swoole_compat == "on"
        is_local = self.uds is None and _is_loopback(self.host) and not self.trusted_proxies
        return () if is_open and is_local else ("*",)

    @property
    def revocation_lifetime_s(self) -> float:
        """How long a revocation is kept: then every token that it could revoke has expired.

        A token without ``iat`` may expire a leeway later than its lifetime allows. A second leeway
        is for the clock of Redis, by which the revocation is dated.
        """
        return self.token_max_lifetime_s + 2 * self.token_leeway_s

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment without what Kubernetes has put there."""
        del env_settings, dotenv_settings, file_secret_settings
        given = _settings_in(_ours(os.environ), cls.model_fields)
        return init_settings, InitSettingsSource(settings_cls, dict(given))

    @classmethod
    def load(cls, env_file: EnvFile | None = None, /, **flags: object) -> Self:
        """Build the settings; a flag wins over the environment, and that over the file.

        A flag that is None is unset.

        Raises:
            ConfigError: the text has a line per mistake: the setting, what was expected, and what
                was given.
        """
        environ = _ours(os.environ)
        _refuse_unknown(environ, cls.model_fields)
        if env_file is not None:
            _refuse_unknown(env_file.texts, cls.model_fields, env_file)
            environ = {**_ours(env_file.texts), **environ}
        given: dict[str, object] = {
            **_settings_in(environ, cls.model_fields),
            **read_secrets(environ),
            **{name: value for name, value in flags.items() if value is not None},
        }
        try:
            return cls(**given)  # type: ignore[arg-type]  # the model checks the types
        except ValidationError as exc:
            raise ConfigError("\n".join(_describe(exc))) from exc

    def safe(self) -> dict[str, str]:
        """Return every setting as text without secrets."""
        shown = {name: _text(getattr(self, name)) for name in type(self).model_fields}
        for name, keys in (("notify_keys", self.notify_keys), ("token_keys", self.token_keys)):
            if keys and isinstance(keys, tuple):
                shown[name] = f"{len(keys)} key(s), not shown"
        if self.redis_url is not None:
            shown["redis_url"] = mask_password(self.redis_url.get_secret_value())
        return shown


def _is_wide(networks: tuple[Network, ...]) -> bool:
    return any(network.prefixlen < _NETWORK_BITS_MIN for network in networks)


def _text(value: object) -> str:
    return ",".join(map(str, value)) or "None" if isinstance(value, tuple) else str(value)


def mask_password(url: str) -> str:
    """Return a URL without its password, and without its query, which may hold one."""
    parts = urlsplit(url)
    if parts.password is not None:
        netloc = f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}"
        parts = parts._replace(netloc=netloc)
    return urlunsplit(parts._replace(query="***" if parts.query else ""))


def has_password(url: str) -> bool:
    """Return whether a URL of Redis has a password, or that of a key for TLS."""
    parts = urlsplit(url)
    return bool(parts.password) or "ssl_password" in dict(parse_qsl(parts.query))


def _ours(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``sse-push`` in upper case, without those of Kubernetes."""
    variables = {name.upper(): text for name, text in environ.items()}
    foreign = of_kubernetes(variables)
    return {
        name: text
        for name, text in variables.items()
        if name.startswith(PREFIX) and name not in foreign
    }


def _settings_in(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    found = {name: variables.get(f"{PREFIX}{name.upper()}") for name in names}
    return {name: text for name, text in found.items() if text is not None}


def _refuse_unknown(
    variables: Mapping[str, str], settings: Iterable[str], file: EnvFile | None = None
) -> None:
    names = {f"{PREFIX}{name.upper()}" for name in settings}
    known = {*names, *OF_CLIENTS, *FILES_OF_SECRETS.values(), SECRETS_DIR}
    unknown = sorted(variables.keys() - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        where = "" if file is None else f"{file.path}, line {file.lines[unknown[0]]}: "
        raise ConfigError(f"{where}{unknown[0]}: there is no such setting{hint}")


def _describe(exc: ValidationError) -> list[str]:
    lines = []
    for error in exc.errors():
        name = str(error["loc"][0]) if error["loc"] else ""
        text = error["msg"].removeprefix("Value error, ")
        is_shown = name not in (*FILES_OF_SECRETS, "")
        got = f", got {error['input']!r}" if is_shown else ""
        variable = f"{name} ({PREFIX}{name.upper()}): " if name else ""
        line = f"{variable}{text[:1].lower()}{text[1:]}{got}"
        if line not in lines:
            lines.append(line)
    return lines
