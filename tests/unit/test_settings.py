from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from sse_push.access.keys import ALGORITHMS, KEY_CHARACTERS_MIN, NotifyKey
from sse_push.errors import ConfigError
from sse_push.settings import Settings, mask_password

KEY = "k1-0123456789abcdef"
OTHER_KEY = "k2-0123456789abcdef"
PASSWORD = "hunter2"
SECRET = "a-secret-0123456789-0123456789-ab"

RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "workers": (1, 256),
    "heartbeat_s": (0.2, 300),
    "refresh_interval_ms": (1, 60_000),
    "retry_ms": (100, 20_000),
    "soft_retry_min_ms": (100, 30_000),
    "soft_retry_max_ms": (100, 30_000),
    "max_connection_age_s": (1, 86_400),
    "send_timeout_s": (0.2, 300),
    "send_buffer_bytes": (4096, 4_194_304),
    "tcp_user_timeout_ms": (1000, 600_000),
    "listen_backlog": (16, 65_535),
    "drain_s": (0, 3600),
    "notify_timeout_s": (0.1, 60),
    "notify_max_items": (1, 10_000),
    "body_limit_bytes": (1024, 67_108_864),
    "data_limit_bytes": (0, 1_048_576),
    "stream_max_entries": (1, 1_000_000),
    "stream_ttl_s": (1, 31_536_000),
    "probe_interval_s": (0.05, 60),
    "probe_deadline_s": (0.1, 120),
    "token_leeway_s": (0, 60),
    "token_max_lifetime_s": (1, 86_400),
    "token_expiring_s": (0.1, 3600),
    "deaf_limit_s": (0.2, 3600),
    "loop_stall_limit_s": (0.5, 300),
    "max_connections": (1, 1_000_000),
    "max_connections_per_merchant": (0, 1_000_000),
    "max_connections_per_address": (0, 1_000_000),
    "header_limit_bytes": (1024, 1_048_576),
    "request_timeout_s": (0.1, 600),
    "notify_rate_per_s": (0, 1_000_000),
    "notify_burst": (1, 1_000_000),
}

BESIDE: dict[str, dict[str, float]] = {
    "max_connection_age_s": {"heartbeat_s": 0.2},
    "soft_retry_max_ms": {"soft_retry_min_ms": 100},
    "body_limit_bytes": {"data_limit_bytes": 0},
    "probe_interval_s": {"probe_deadline_s": 120, "deaf_limit_s": 120},
    "probe_deadline_s": {"probe_interval_s": 0.05, "deaf_limit_s": 120},
    "deaf_limit_s": {"probe_interval_s": 0.05, "probe_deadline_s": 0.1},
}
"""What has to be set as well, so that only the range decides."""


@pytest.fixture(autouse=True)
def bare_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SSE_PUSH_"):
            monkeypatch.delenv(name)


def error_of(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(**flags)
    return str(caught.value)


def secrets_of(values: tuple[NotifyKey, ...] | str | None) -> list[str]:
    assert isinstance(values, tuple)
    return [value.secret.get_secret_value() for value in values]


# -- defaults


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("heartbeat_s", 15),
        ("refresh_interval_ms", 100),
        ("retry_ms", 2000),
        ("soft_retry_min_ms", 5000),
        ("soft_retry_max_ms", 30_000),
        ("max_connection_age_s", 900),
        ("send_timeout_s", 15),
        ("drain_s", 20),
        ("notify_timeout_s", 3),
        ("body_limit_bytes", 1024 * 1024),
        ("data_limit_bytes", 8 * 1024),
        ("notify_max_items", 1000),
        ("send_buffer_bytes", 16 * 1024),
        ("tcp_user_timeout_ms", 30_000),
        ("listen_backlog", 4096),
        ("stream_max_entries", 100),
        ("stream_ttl_s", 7 * 24 * 3600),
        ("probe_interval_s", 3),
        ("probe_deadline_s", 6),
        ("deaf_limit_s", 20),
        ("loop_stall_limit_s", 5),
        ("max_connections", 15_000),
        ("max_connections_per_merchant", 10_000),
        ("max_connections_per_address", 0),
        ("header_limit_bytes", 16 * 1024),
        ("request_timeout_s", 10),
        ("notify_rate_per_s", 0),
        ("notify_burst", 1000),
        ("host", "127.0.0.1"),
        ("port", 8000),
        ("workers", 1),
        ("log_level", "info"),
        ("token_algorithms", ("HS256",)),
        ("token_leeway_s", 5),
        ("token_max_lifetime_s", 3600),
        ("token_expiring_s", 30),
        ("token_keys", ()),
        ("trusted_proxies", ()),
        ("allowed_origins", ()),
    ],
)
def test_a_setting_has_a_default_that_serves(name: str, default: object) -> None:
    assert getattr(Settings.load(), name) == default


@pytest.mark.parametrize(
    "name",
    [
        *("redis_url", "subscribe_auth", "notify_keys", "uds", "token_keys_file"),
        *("token_audience", "token_issuer", "token_cookie"),
    ],
)
def test_what_only_an_operator_can_know_has_no_default(name: str) -> None:
    assert getattr(Settings.load(), name) is None


def test_every_setting_says_what_it_is_for() -> None:
    silent = [name for name, field in Settings.model_fields.items() if not field.description]

    assert silent == []


# -- where they come from


def test_the_environment_sets_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_HEARTBEAT_S", "2.5")
    monkeypatch.setenv("sse_push_workers", "4")
    monkeypatch.setenv("SSE_PUSH_REDIS_URL", "rediss://redis.example:6380/1")

    settings = Settings.load()

    assert settings.heartbeat_s == 2.5
    assert settings.workers == 4
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "rediss://redis.example:6380/1"


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_PORT", "8001")
    monkeypatch.setenv("SSE_PUSH_WORKERS", "4")

    settings = Settings.load(port="8002", workers=None)

    assert settings.port == 8002
    assert settings.workers == 4  # a flag that was not given


def test_a_variable_that_is_no_setting_is_an_error_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSE_PUSH_HEARTBEATS", "5")

    assert error_of() == (
        "SSE_PUSH_HEARTBEATS: there is no such setting; did you mean SSE_PUSH_HEARTBEAT_S?"
    )


def test_a_variable_that_is_like_no_setting_is_an_error_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("Sse_Push_QQQQQQQQQQQQQQQQQQQQQQ", PASSWORD)

    assert error_of() == "Sse_Push_QQQQQQQQQQQQQQQQQQQQQQ: there is no such setting"


def test_what_the_command_line_shows_is_no_setting_and_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEY", KEY)
    monkeypatch.setenv("SSE_PUSH_TOKEN", "a.b.c")

    assert Settings.load().notify_keys is None
    assert Settings.load().token_keys == ()


def test_a_variable_of_another_program_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSHER", "1")
    monkeypatch.setenv("HEARTBEAT_S", "1")

    assert Settings.load().heartbeat_s == 15


def test_a_flag_that_is_no_setting_is_an_error() -> None:
    assert error_of(heartbeat=1).startswith("heartbeat (SSE_PUSH_HEARTBEAT): extra inputs are not")


def test_settings_do_not_change() -> None:
    settings = Settings.load()

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # the mistake that is meant


# -- ranges


def test_every_number_has_a_range() -> None:
    numbers = {
        name for name, field in Settings.model_fields.items() if field.annotation in (int, float)
    }

    assert numbers == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_number_may_be_at_the_ends_of_its_range(name: str) -> None:
    beside: dict[str, object] = {**BESIDE.get(name, {})}

    for value in RANGES[name]:
        assert getattr(Settings.load(**beside, **{name: value}), name) == value


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_refused(name: str) -> None:
    beside: dict[str, object] = {**BESIDE.get(name, {})}
    low, high = RANGES[name]
    variable = f"{name} (SSE_PUSH_{name.upper()}): input should be"

    below = error_of(**beside, **{name: low - 1})
    above = error_of(**beside, **{name: high + 1})

    assert below.splitlines()[0] == (f"{variable} greater than or equal to {low}, got {low - 1!r}")
    assert above.splitlines()[0] == f"{variable} less than or equal to {high}, got {high + 1!r}"


@pytest.mark.parametrize("text", ["", "fifteen", "15 s", "nan", "inf", "-inf"])
def test_a_duration_is_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SSE_PUSH_HEARTBEAT_S", text)

    error = error_of()

    assert error.startswith("heartbeat_s (SSE_PUSH_HEARTBEAT_S): input should be ")
    assert error.endswith(f", got {text!r}")


@pytest.mark.parametrize("text", ["", "x", "1.5", "nan", "\u0664\u0662x"])
def test_a_count_is_a_whole_number(text: str) -> None:
    assert error_of(workers=text).startswith("workers (SSE_PUSH_WORKERS): input should be a valid")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_log_level_is_one_of_four(level: str) -> None:
    assert Settings.load(log_level=level).log_level == level


def test_another_log_level_is_refused() -> None:
    assert error_of(log_level="trace") == (
        "log_level (SSE_PUSH_LOG_LEVEL): input should be 'debug', 'info', 'warning' or 'error', "
        "got 'trace'"
    )


def test_every_mistake_has_its_line() -> None:
    lines = error_of(port=-1, workers=0, log_level="loud").splitlines()

    assert [line.partition(" ")[0] for line in lines] == ["port", "workers", "log_level"]


# -- contradictions


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            {"heartbeat_s": 10, "max_connection_age_s": 19.5},
            "max_connection_age_s (19.5) must be at least two heartbeats (heartbeat_s is 10)",
        ),
        (
            {"soft_retry_min_ms": 2001, "soft_retry_max_ms": 2000},
            "soft_retry_min_ms (2001) must not be above soft_retry_max_ms (2000)",
        ),
        (
            {"deaf_limit_s": 5},
            "deaf_limit_s (5) must not be below probe_deadline_s (6)",
        ),
        (
            {"probe_interval_s": 2, "probe_deadline_s": 1.5},
            "probe_deadline_s (1.5) must not be below probe_interval_s (2)",
        ),
        (
            {"data_limit_bytes": 2049, "body_limit_bytes": 2048},
            "data_limit_bytes (2049) must not be above body_limit_bytes (2048)",
        ),
        (
            {"uds": "/run/push.sock", "port": 8000},
            "uds stands instead of host and port: set one or the other",
        ),
        (
            {"uds": "/run/push.sock", "host": "0.0.0.0"},
            "uds stands instead of host and port: set one or the other",
        ),
        (
            {"subscribe_auth": "token"},
            "subscribe_auth (token) needs keys that check tokens: token_keys or token_keys_file",
        ),
        (
            {"subscribe_auth": "none", "token_keys": SECRET},
            "subscribe_auth (none) must be token if token_keys or token_keys_file is set",
        ),
        (
            {"subscribe_auth": "header", "uds": "/run/push.sock", "token_keys_file": "/k"},
            "subscribe_auth (header) must be token if token_keys or token_keys_file is set",
        ),
        (
            {"token_keys": SECRET, "token_algorithms": "RS256,ES256"},
            "token_keys are for HS256, which token_algorithms (RS256,ES256) leaves out",
        ),
        (
            {"subscribe_auth": "header"},
            "subscribe_auth (header) needs trusted_proxies, or uds: anybody could set the header",
        ),
        (
            {"allowed_origins": "https://app.example,*"},
            "allowed_origins: expected * or a list, got both",
        ),
        (
            {"allowed_origins": "*", "token_cookie": "push"},
            "allowed_origins (*) must be a list where a cookie says who listens "
            "(token_cookie, subscribe_auth=header)",
        ),
        (
            {"allowed_origins": "*", "subscribe_auth": "header", "uds": "/run/push.sock"},
            "allowed_origins (*) must be a list where a cookie says who listens "
            "(token_cookie, subscribe_auth=header)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    flags: dict[str, object], error: str
) -> None:
    assert error_of(**flags) == error


@pytest.mark.parametrize(
    "flags",
    [
        {"heartbeat_s": 10, "max_connection_age_s": 20},
        {"soft_retry_min_ms": 2000, "soft_retry_max_ms": 2000},
        {"probe_interval_s": 2, "probe_deadline_s": 2},
        {"data_limit_bytes": 2048, "body_limit_bytes": 2048},
        {"uds": "/run/push.sock"},
        {"subscribe_auth": "header", "uds": "/run/push.sock"},
        {"token_cookie": "push", "token_audience": "a"},
        {"subscribe_auth": "token", "token_keys_file": Path("/k"), "token_algorithms": ("RS256",)},
    ],
)
def test_settings_that_just_agree_are_taken(flags: dict[str, object]) -> None:
    settings = Settings.load(**flags)

    assert {name: getattr(settings, name) for name in flags} == flags


# -- who may do what


def test_none_must_be_said() -> None:
    settings = Settings.load(subscribe_auth="none", notify_keys="none")

    assert settings.subscribe_auth == "none"
    assert settings.notify_keys == "none"


def test_no_other_way_to_subscribe_is_known() -> None:
    assert error_of(subscribe_auth="anyone") == (
        "subscribe_auth (SSE_PUSH_SUBSCRIBE_AUTH): input should be 'none', 'token' or 'header', "
        "got 'anyone'"
    )


def test_several_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEYS", f"{KEY}, {OTHER_KEY} ")

    assert secrets_of(Settings.load().notify_keys) == [KEY, OTHER_KEY]
    assert secrets_of(Settings.load(notify_keys=KEY).notify_keys) == [KEY]


def test_keys_that_were_checked_are_taken_again() -> None:
    keys = Settings.load(notify_keys=f"{KEY},{OTHER_KEY}").notify_keys

    assert Settings.load(notify_keys=keys).notify_keys == keys


def test_a_key_may_be_as_short_as_the_limit() -> None:
    assert KEY_CHARACTERS_MIN == 16
    assert secrets_of(Settings.load(notify_keys="x" * KEY_CHARACTERS_MIN).notify_keys)


@pytest.mark.parametrize(
    ("keys", "characters"),
    [
        ("", 0),
        (" none", 4),
        ("x" * (KEY_CHARACTERS_MIN - 1), KEY_CHARACTERS_MIN - 1),
        (f"{KEY},", 0),
        (f"{KEY},{PASSWORD}", len(PASSWORD)),
        ("é" * 20, 20),
        ("x" * 20 + "\n" + "x" * 20, 41),
    ],
)
def test_a_weak_key_is_refused_and_not_shown(keys: str, characters: int) -> None:
    assert error_of(notify_keys=keys) == (
        f"notify_keys (SSE_PUSH_NOTIFY_KEYS): each key needs at least {KEY_CHARACTERS_MIN} "
        f"printable ASCII characters, one has {characters}; "
        "`openssl rand -hex 24` makes a good one"
    )


@pytest.mark.parametrize("keys", [5, [1, 2], {"a": KEY}, (KEY, 5)])
def test_what_is_no_text_is_no_key(keys: object) -> None:
    error = error_of(notify_keys=keys)

    lines = error.splitlines()
    assert all(
        line.startswith("notify_keys (SSE_PUSH_NOTIFY_KEYS): input should be ") for line in lines
    )
    assert len(lines) == len(set(lines))
    assert KEY not in error


def test_a_key_may_be_for_some_merchants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEYS", f"{KEY} 42 shop-*, {OTHER_KEY}")

    keys = Settings.load().notify_keys

    assert isinstance(keys, tuple)
    assert [key.merchants for key in keys] == [("42", "shop-*"), ()]


def test_a_key_that_stands_twice_is_refused_and_not_shown() -> None:
    """Which merchants it is for would depend on the order."""
    assert error_of(notify_keys=f"{KEY} 42, {KEY}") == (
        "notify_keys (SSE_PUSH_NOTIFY_KEYS): expected each key once, got one twice"
    )


# -- tokens


def test_secrets_of_tokens_may_have_a_kid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_TOKEN_KEYS", f"old={SECRET}, {SECRET[::-1]}")

    keys = Settings.load().token_keys

    assert [(key.kid, key.secret.get_secret_value()) for key in keys] == [
        ("old", SECRET),
        (None, SECRET[::-1]),
    ]


@pytest.mark.parametrize("keys", ["", SECRET[:31], f"{SECRET},", f"{SECRET},hunter2"])
def test_a_weak_secret_is_refused_and_not_shown(keys: str) -> None:
    error = error_of(subscribe_auth="token", token_keys=keys)

    assert error.startswith("token_keys (SSE_PUSH_TOKEN_KEYS): each HMAC secret needs at least 32")
    assert "hunter2" not in error
    assert SECRET[:31] not in error


@pytest.mark.parametrize("keys", [5, [SECRET], {"a": SECRET}])
def test_what_is_no_text_is_no_secret(keys: object) -> None:
    error = error_of(token_keys=keys)

    assert error.startswith("token_keys (SSE_PUSH_TOKEN_KEYS): input should be ")
    assert SECRET not in error


@pytest.mark.parametrize("algorithms", ["HS256", "RS256, ES256", "EdDSA,HS256"])
def test_algorithms_are_those_that_we_know(algorithms: str) -> None:
    settings = Settings.load(token_algorithms=algorithms)

    assert ",".join(settings.token_algorithms) == algorithms.replace(" ", "")


def test_the_algorithms_are_those_of_the_keys() -> None:
    assert Settings.load(token_algorithms=",".join(ALGORITHMS)).token_algorithms == ALGORITHMS


@pytest.mark.parametrize("algorithms", ["none", "HS512", "hs256", "HS256,none", "HS256,", ""])
def test_another_algorithm_is_refused(algorithms: str) -> None:
    assert error_of(token_algorithms=algorithms).startswith(
        "token_algorithms (SSE_PUSH_TOKEN_ALGORITHMS): input should be 'HS256', 'RS256', "
        "'ES256' or 'EdDSA', got "
    )


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "a\n", "ä", '"a"'])
def test_a_cookie_has_a_name_that_a_cookie_can_have(name: str) -> None:
    assert error_of(token_cookie=name).startswith("token_cookie (SSE_PUSH_TOKEN_COOKIE): ")
    assert Settings.load(token_cookie="__Host-push").token_cookie == "__Host-push"


@pytest.mark.parametrize("name", ["token_audience", "token_issuer"])
def test_an_audience_is_not_empty(name: str) -> None:
    assert error_of(**{name: ""}).startswith(f"{name} (SSE_PUSH_{name.upper()}): ")


# -- proxies and origins


def test_proxies_are_addresses_and_networks() -> None:
    settings = Settings.load(trusted_proxies="127.0.0.1, 10.0.0.0/8,::1")

    assert settings.safe()["trusted_proxies"] == "127.0.0.1/32,10.0.0.0/8,::1/128"


@pytest.mark.parametrize("proxies", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*", "1.2.3.4,"])
def test_what_is_no_network_is_refused(proxies: str) -> None:
    assert error_of(trusted_proxies=proxies).startswith(
        "trusted_proxies (SSE_PUSH_TRUSTED_PROXIES): "
    )


@pytest.mark.parametrize(
    "origins",
    [
        "https://app.example",
        "http://localhost:5173,https://app.example:8443",
        "https://a-b.example,http://[::1]:8080",
        "http://10.0.0.1",
        "*",
    ],
)
def test_origins_are_as_browsers_send_them(origins: str) -> None:
    assert Settings.load(allowed_origins=origins).safe()["allowed_origins"] == origins


@pytest.mark.parametrize(
    "origin",
    [
        *("", "app.example", "https://app.example/", "https://App.example", "null", "**"),
        *("https://*.example", "https://app.example:443", "http://app.example:80"),
        *("ftp://app.example", "https://", "https://a@app.example", "https://app.example:0"),
        *("https://app.example:123456", "https://äpp.example", "https://app.ex\nample"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    error = error_of(allowed_origins=f"https://good.example,{origin}")

    assert error.startswith(
        "allowed_origins (SSE_PUSH_ALLOWED_ORIGINS): expected origins as browsers send them, "
    )


# -- Redis


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "rediss://user:pass@redis.example/1",
        "unix:///run/redis.sock?db=1",
        "unix://:pass@/run/redis.sock",
    ],
)
def test_redis_is_found_by_its_url(url: str) -> None:
    settings = Settings.load(redis_url=url)

    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:hunter2@host", "got another scheme"),
        ("hunter2:6379", "got another scheme"),
        ("redis://:hunter2\u2100@host", "got one that can't be parsed"),
        ("redis://:hunter2/x@host", "got one as it is"),
        ("redis://:hunter2#x@host", "got one as it is"),
        ("redis://:hunter2?x@host", "got one as it is"),
    ],
)
def test_a_redis_url_that_is_none_is_refused_and_not_shown(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as failure:
        Settings.load(redis_url=url)

    assert str(failure.value).endswith(said)
    assert "hunter2" not in str(failure.value) + str(failure.value.__cause__)


@pytest.mark.parametrize("url", [5, f"redis://:{PASSWORD}@[::1", [PASSWORD]])
def test_what_is_no_url_is_refused_and_not_shown(url: object) -> None:
    error = error_of(redis_url=url)

    assert error.startswith("redis_url (SSE_PUSH_REDIS_URL): ")
    assert PASSWORD not in error


# -- what may be shown


def test_every_setting_can_be_shown() -> None:
    shown = Settings.load().safe()

    assert set(shown) == set(Settings.model_fields)
    assert shown["heartbeat_s"] == "15.0"
    assert shown["notify_keys"] == "None"
    assert shown["redis_url"] == "None"


def test_no_secret_is_ever_shown() -> None:
    settings = Settings.load(
        notify_keys=f"{KEY} 42,{OTHER_KEY}",
        redis_url=f"redis://user:{PASSWORD}@redis.example:6379/0",
        subscribe_auth="token",
        token_keys=f"old={SECRET}",
    )

    shown = settings.safe()

    assert shown["notify_keys"] == "2 key(s), not shown"
    assert shown["token_keys"] == "1 key(s), not shown"
    assert shown["redis_url"] == "redis://user:***@redis.example:6379/0"
    for text in (str(shown), str(settings), repr(settings)):
        assert not any(secret in text for secret in (KEY, OTHER_KEY, PASSWORD, SECRET))


def test_open_doors_are_shown() -> None:
    assert Settings.load(notify_keys="none").safe()["notify_keys"] == "none"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://redis.example:6379/0", "redis://redis.example:6379/0"),
        ("redis://user@redis.example", "redis://user@redis.example"),
        (f"redis://:{PASSWORD}@redis.example", "redis://:***@redis.example"),
        (f"redis://user:{PASSWORD}@[::1]:6379/0", "redis://user:***@[::1]:6379/0"),
        (f"redis://:a@{PASSWORD}:b@redis.example", "redis://:***@redis.example"),
        ("redis://user:@redis.example", "redis://user:***@redis.example"),
        (f"redis://redis.example?password={PASSWORD}&db=1", "redis://redis.example?***"),
        (f"unix://:{PASSWORD}@/run/redis.sock", "unix://:***@/run/redis.sock"),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, masked: str) -> None:
    assert mask_password(url) == masked


# -- workers


def test_settings_reach_another_process_whole() -> None:
    settings = Settings.load(
        notify_keys=f"{KEY},{OTHER_KEY}",
        redis_url=f"redis://:{PASSWORD}@redis.example",
        subscribe_auth="token",
        token_keys=f"old={SECRET}",
        trusted_proxies="10.0.0.0/8",
        workers=2,
    )

    arrived = pickle.loads(pickle.dumps(settings))

    assert arrived == settings
    assert secrets_of(arrived.notify_keys) == [KEY, OTHER_KEY]
    assert arrived.redis_url.get_secret_value() == f"redis://:{PASSWORD}@redis.example"
    assert arrived.model_fields_set == settings.model_fields_set


def test_a_revocation_outlives_each_token_that_it_covers() -> None:
    settings = Settings(token_max_lifetime_s=600, token_leeway_s=10)

    assert settings.revocation_lifetime_s == 620
