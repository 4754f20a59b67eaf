from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from sse_push.settings import Settings
from tests.unit.settings.given import KEY, OTHER_KEY, PASSWORD, SECRET, error_of, secrets_of

RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "workers": (1, 256),
    "heartbeat_s": (0.2, 300),
    "refresh_interval_ms": (1, 60_000),
    "retry_ms": (100, 20_000),
    "soft_retry_min_ms": (100, 30_000),
    "soft_retry_max_ms": (100, 30_000),
    "max_connection_age_s": (1, 86_400),
    "poll_interval_s": (1, 3600),
    "send_timeout_s": (0.2, 300),
    "send_buffer_bytes": (4096, 4_194_304),
    "tcp_user_timeout_ms": (1000, 600_000),
    "listen_backlog": (16, 65_535),
    "shutdown_delay_s": (0, 600),
    "drain_s": (0, 3600),
    "start_limit_s": (1, 3600),
    "notify_timeout_s": (0.1, 60),
    "notify_max_items": (1, 10_000),
    "body_limit_bytes": (1024, 67_108_864),
    "data_limit_bytes": (0, 1_048_576),
    "wait_replicas": (0, 16),
    "stream_max_entries": (1, 1_000_000),
    "stream_ttl_s": (1, 31_536_000),
    "max_planted": (0, 10_000_000),
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
    "max_merchants_per_connection": (1, 64),
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
"""Further settings, so that no contradiction is found before the range."""


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
        ("poll_interval_s", 10),
        ("send_timeout_s", 15),
        ("drain_s", 20),
        ("start_limit_s", 60),
        ("notify_timeout_s", 3),
        ("body_limit_bytes", 1024 * 1024),
        ("data_limit_bytes", 8 * 1024),
        ("notify_max_items", 1000),
        ("send_buffer_bytes", 16 * 1024),
        ("tcp_user_timeout_ms", 30_000),
        ("listen_backlog", 4096),
        ("key_prefix", "sse_push"),
        ("stream_max_entries", 100),
        ("stream_ttl_s", 7 * 24 * 3600),
        ("max_planted", 10_000),
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
        ("uds_mode", "0666"),
        ("workers", 1),
        ("log_level", "info"),
        ("token_algorithms", ("HS256",)),
        ("token_leeway_s", 5),
        ("token_max_lifetime_s", 3600),
        ("token_expiring_s", 30),
        ("token_keys", ()),
        ("trusted_proxies", ()),
        ("allowed_hosts", None),
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
def test_a_setting_that_only_an_operator_can_know_has_no_default(name: str) -> None:
    assert getattr(Settings.load(), name) is None


def test_every_setting_has_a_description() -> None:
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


def test_an_unknown_variable_is_an_error_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSE_PUSH_HEARTBEATS", "5")

    assert error_of() == (
        "SSE_PUSH_HEARTBEATS: there is no such setting; did you mean SSE_PUSH_HEARTBEAT_S?"
    )


def test_an_unknown_variable_like_no_setting_is_an_error_without_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("Sse_Push_QQQQQQQQQQQQQQQQQQQQQQ", PASSWORD)

    assert error_of() == "SSE_PUSH_QQQQQQQQQQQQQQQQQQQQQQ: there is no such setting"


def test_the_variables_of_the_command_line_are_neither_settings_nor_mistakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEY", KEY)
    monkeypatch.setenv("SSE_PUSH_TOKEN", "a.b.c")

    assert Settings.load().notify_keys is None
    assert Settings.load().token_keys == ()


def test_a_variable_of_another_program_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSHER", "1")
    monkeypatch.setenv("HEARTBEAT_S", "1")

    assert Settings.load().heartbeat_s == 15


def test_an_unknown_flag_is_an_error() -> None:
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
            "uds replaces host and port: set one or the other",
        ),
        (
            {"uds": "/run/push.sock", "host": "0.0.0.0"},
            "uds replaces host and port: set one or the other",
        ),
        (
            {"subscribe_auth": "token"},
            "subscribe_auth (token) needs keys that verify tokens: token_keys or token_keys_file",
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
            "token_keys need HS256, which is missing in token_algorithms (RS256,ES256)",
        ),
        (
            {"subscribe_auth": "header"},
            "subscribe_auth (header) needs trusted_proxies or uds: otherwise any client could set "
            "the header",
        ),
        (
            {"uds_mode": "0660"},
            "uds_mode needs uds: no other socket has a mode",
        ),
        *(
            (
                {"subscribe_auth": "header", "trusted_proxies": f"127.0.0.1,{wide}"},
                f"trusted_proxies (127.0.0.1/32,{wide}) must name the proxies if subscribe_auth is "
                "header: otherwise any client could set the header",
            )
            for wide in ("0.0.0.0/0", "::/0", "128.0.0.0/1", "2000::/3")
        ),
        (
            {"swoole_compat": "on", "uds": "/run/push.sock"},
            "swoole_compat (on) needs host and port: who connects to uds has no address",
        ),
        (
            {"trusted_backends": "10.1.0.9"},
            "trusted_backends needs swoole_compat (on): otherwise each backend has a key",
        ),
        (
            {"swoole_compat": "on", "trusted_backends": "127.0.0.1,0.0.0.0/0"},
            "trusted_backends (127.0.0.1/32,0.0.0.0/0) must name the backends: otherwise anyone "
            "could notify without a key",
        ),
        (
            {"allowed_hosts": "push.example,*"},
            "allowed_hosts: expected * or a list, got both",
        ),
        (
            {"allowed_origins": "https://app.example,*"},
            "allowed_origins: expected * or a list, got both",
        ),
        (
            {"allowed_origins": "*", "token_cookie": "push"},
            "allowed_origins (*) must be a list if cookies decide who may listen "
            "(token_cookie, subscribe_auth=header)",
        ),
        (
            {"allowed_origins": "*", "subscribe_auth": "header", "uds": "/run/push.sock"},
            "allowed_origins (*) must be a list if cookies decide who may listen "
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
        {"swoole_compat": "on"},
        {"subscribe_auth": "header", "uds": "/run/push.sock"},
        {"token_cookie": "push", "token_audience": "a"},
        {"subscribe_auth": "token", "token_keys_file": Path("/k"), "token_algorithms": ("RS256",)},
    ],
)
def test_settings_that_just_agree_are_accepted(flags: dict[str, object]) -> None:
    settings = Settings.load(**flags)

    assert {name: getattr(settings, name) for name in flags} == flags


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
