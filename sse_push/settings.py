"""The settings of one process: names, units, defaults, ranges, and what contradicts what.

Built once, by ``cli``, and passed in. No other module reads the environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sse_push.errors import ConfigError

PREFIX = "SSE_PUSH_"
KEY_CHARACTERS_MIN = 16
KEY_VARIABLE = f"{PREFIX}NOTIFY_KEY"
"""Not a setting: the key with which ``sse-push notify`` speaks to a service."""


def _split_keys(value: object) -> object:
    if not isinstance(value, str) or value == "none":
        return value
    return tuple(SecretStr(key.strip()) for key in value.split(","))


NotifyKeys = Annotated[
    tuple[SecretStr, ...] | Literal["none"], NoDecode, BeforeValidator(_split_keys)
]


class Settings(BaseSettings):
    """Settings from ``SSE_PUSH_*`` and flags; a name that is not here is an error.

    Durations are seconds (``_s``) or milliseconds (``_ms``), sizes bytes (``_bytes``).
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on; nginx stands before it")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    uds: str | None = Field(None, description="Unix socket to listen on, instead of host and port")
    redis_url: SecretStr | None = Field(
        None, description="`redis://`, `rediss://` or `unix://` URL of Redis or Valkey"
    )
    workers: int = Field(1, ge=1, le=256, description="processes that share the listening socket")
    subscribe_auth: Literal["none"] | None = Field(
        None, description="who may listen; `none`: anyone. Must be said"
    )
    notify_keys: NotifyKeys | None = Field(
        None,
        description="bearer keys that may notify, comma-separated; `none`: anyone. Must be said",
    )

    heartbeat_s: float = Field(
        15.0, ge=0.2, le=300, description="longest silence before a `heartbeat` event is written"
    )
    refresh_interval_ms: int = Field(
        100,
        ge=1,
        le=60_000,
        description="a busy merchant's browsers are written to this often at most",
    )
    retry_ms: int = Field(
        2000, ge=100, le=20_000, description="reconnection time told to browsers, ± 50 % each"
    )
    soft_retry_min_ms: int = Field(
        5000, ge=100, le=30_000, description="shortest reconnection time when not served now"
    )
    soft_retry_max_ms: int = Field(
        30_000, ge=100, le=30_000, description="longest reconnection time when not served now"
    )
    max_connection_age_s: float = Field(
        900.0, ge=1, le=86_400, description="a connection is moved on after this, ± 20 % each"
    )
    send_timeout_s: float = Field(
        15.0, ge=0.2, le=300, description="a client that takes no bytes for so long is ended"
    )
    send_buffer_bytes: int = Field(
        16_384,
        ge=4096,
        le=4_194_304,
        description="kernel's buffer per connection: what a sleeping client finds waiting",
    )
    tcp_user_timeout_ms: int = Field(
        30_000,
        ge=1000,
        le=600_000,
        description="a peer that acknowledges nothing is dropped after this",
    )
    listen_backlog: int = Field(
        4096, ge=16, le=65_535, description="connections that may wait to be accepted"
    )
    drain_s: float = Field(
        20.0, ge=0, le=3600, description="at SIGTERM, streams are ended over this time at most"
    )

    notify_timeout_s: float = Field(
        3.0, ge=0.1, le=60, description="`POST /notify` is answered within this"
    )
    notify_max_items: int = Field(
        1000, ge=1, le=10_000, description="notifications in one JSON array"
    )
    body_limit_bytes: int = Field(
        1_048_576, ge=1024, le=67_108_864, description="body of `POST /notify`; nginx must agree"
    )
    data_limit_bytes: int = Field(
        8192, ge=0, le=1_048_576, description="`data` of one notification, as compact JSON"
    )
    stream_max_entries: int = Field(
        100, ge=1, le=1_000_000, description="entries kept per merchant, approximately"
    )
    stream_ttl_s: float = Field(
        604_800.0, ge=1, le=31_536_000, description="a quiet merchant's stream expires after this"
    )
    probe_interval_s: float = Field(
        3.0, ge=0.05, le=60, description="how often Redis is asked to announce a write of ours"
    )
    probe_deadline_s: float = Field(
        6.0,
        ge=0.1,
        le=120,
        description="not ready, and reconnecting, when no write came back in this",
    )
    deaf_limit_s: float = Field(
        20.0,
        ge=0.2,
        le=3600,
        description="a worker that hears no write announced for so long, though Redis takes them, "
        "ends itself",
    )
    loop_stall_limit_s: float = Field(
        5.0,
        ge=0.5,
        le=300,
        description="a worker whose event loop does nothing for so long ends itself",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )
    log_format: Literal["logfmt", "json"] = Field(
        "logfmt", description="form of a log line: `logfmt` or `json`"
    )

    @field_validator("notify_keys")
    @classmethod
    def _keys_are_strong(cls, value: NotifyKeys | None) -> NotifyKeys | None:
        for key in value if isinstance(value, tuple) else ():
            text = key.get_secret_value()
            if len(text) < KEY_CHARACTERS_MIN or not text.isascii() or not text.isprintable():
                raise ValueError(
                    f"each key needs at least {KEY_CHARACTERS_MIN} printable ASCII characters, "
                    f"one has {len(text)}; `openssl rand -hex 24` makes a good one"
                )
        return value

    @field_validator("redis_url")
    @classmethod
    def _scheme_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            # Nothing of it is shown: a password stands in it, and not always where it should.
            url = value.get_secret_value()
            if not url.startswith(("redis://", "rediss://", "unix://")):
                raise ValueError("expected redis://, rediss:// or unix://, came another scheme")
            try:
                parts = urlsplit(url)
            except ValueError:
                raise ValueError("expected a URL, came one that can't be parsed") from None
            if "@" in parts.path + parts.query + parts.fragment and parts.scheme != "unix":
                raise ValueError("expected / ? # in a password as %2F %3F %23, came one as it is")
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
                self.uds is not None and {"host", "port"} & self.model_fields_set != set(),
                "uds stands instead of host and port: set one or the other",
            ),
        ]
        for is_contradiction, text in contradictions:
            if is_contradiction:
                raise ValueError(text)
        return self

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Build the settings from the environment, and from flags, which win; None is unset.

        Raises:
            ConfigError: a line per mistake: which setting, what was expected, what came.
        """
        _refuse_unknown(os.environ, frozenset(cls.model_fields))
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)  # type: ignore[arg-type]  # checked by the model, that is what it is for
        except ValidationError as exc:
            raise ConfigError("\n".join(_describe(exc))) from exc

    def safe(self) -> dict[str, str]:
        """Return every setting as text that may be shown: without secrets."""
        shown = {name: str(getattr(self, name)) for name in type(self).model_fields}
        if isinstance(self.notify_keys, tuple):
            shown["notify_keys"] = f"{len(self.notify_keys)} key(s), not shown"
        if self.redis_url is not None:
            shown["redis_url"] = mask_password(self.redis_url.get_secret_value())
        return shown


def mask_password(url: str) -> str:
    """Return a URL with its password, and what may hold one, hidden."""
    parts = urlsplit(url)
    if parts.password is not None:
        netloc = f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}"
        parts = parts._replace(netloc=netloc)
    return urlunsplit(parts._replace(query="***" if parts.query else ""))


def _refuse_unknown(environ: Mapping[str, str], known: frozenset[str]) -> None:
    names = {f"{PREFIX}{name.upper()}" for name in known} | {KEY_VARIABLE}
    unknown = sorted(
        name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in names
    )
    if unknown:
        close = difflib.get_close_matches(unknown[0].upper(), names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{unknown[0]}: there is no such setting{hint}")


def _describe(exc: ValidationError) -> list[str]:
    lines = []
    for error in exc.errors():
        name = str(error["loc"][0]) if error["loc"] else ""
        text = error["msg"].removeprefix("Value error, ")
        came = "" if name in ("notify_keys", "redis_url", "") else f", came {error['input']!r}"
        variable = f"{name} ({PREFIX}{name.upper()}): " if name else ""
        line = f"{variable}{text[:1].lower()}{text[1:]}{came}"
        if line not in lines:
            lines.append(line)
    return lines
