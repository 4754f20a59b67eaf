"""Settings that decide who may do what, and what of them may be shown."""

from __future__ import annotations

import pytest

from sse_push.access.keys import ALGORITHMS, KEY_CHARACTERS_MIN
from sse_push.errors import ConfigError
from sse_push.settings import Settings, has_password, mask_password
from tests.unit.settings.given import KEY, OTHER_KEY, PASSWORD, SECRET, error_of, secrets_of

# -- who may do what


def test_the_word_none_opens_the_service_to_anyone() -> None:
    settings = Settings.load(subscribe_auth="none", notify_keys="none")

    assert settings.subscribe_auth == "none"
    assert settings.notify_keys == "none"


def test_another_value_of_subscribe_auth_is_refused() -> None:
    assert error_of(subscribe_auth="anyone") == (
        "subscribe_auth (SSE_PUSH_SUBSCRIBE_AUTH): input should be 'none', 'token' or 'header', "
        "got 'anyone'"
    )


def test_several_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_PUSH_NOTIFY_KEYS", f"{KEY}, {OTHER_KEY} ")

    assert secrets_of(Settings.load().notify_keys) == [KEY, OTHER_KEY]
    assert secrets_of(Settings.load(notify_keys=KEY).notify_keys) == [KEY]


def test_keys_that_were_checked_are_accepted_again() -> None:
    keys = Settings.load(notify_keys=f"{KEY},{OTHER_KEY}").notify_keys

    assert Settings.load(notify_keys=keys).notify_keys == keys


def test_a_key_at_the_lower_limit_is_accepted() -> None:
    assert KEY_CHARACTERS_MIN == 32
    assert secrets_of(Settings.load(notify_keys="0a1b2c3d" * 4).notify_keys)


@pytest.mark.parametrize(
    ("keys", "characters"),
    [
        ("", 0),
        ("0a1b2c3d" * 3 + "0a1b2c3", KEY_CHARACTERS_MIN - 1),
        (f"{KEY},", 0),
        (f"{KEY},{PASSWORD}!", len(PASSWORD) + 1),
        ("é" * 40, 40),
        ("x" * 20 + "\n" + "x" * 20, 41),
    ],
)
def test_a_weak_key_is_refused_and_not_shown(keys: str, characters: int) -> None:
    assert error_of(notify_keys=keys) == (
        f"notify_keys (SSE_PUSH_NOTIFY_KEYS): expected keys of at least {KEY_CHARACTERS_MIN} "
        f"printable ASCII characters, got one of {characters}; "
        "`openssl rand -hex 24` makes a good key"
    )


@pytest.mark.parametrize(
    "merchant", ["43", "merchant-1000000001", "550e8400-e29b-41d4-a716-446655440000", "none"]
)
def test_a_merchant_behind_a_comma_is_refused_and_not_shown(merchant: str) -> None:
    error = error_of(notify_keys=f"{KEY} 42, {merchant}")

    assert error == (
        "notify_keys (SSE_PUSH_NOTIFY_KEYS): expected random keys, got one that looks like the "
        "name of a merchant, which stands behind its key and without a comma, as in "
        "`KEY 42 shop-*`; `openssl rand -hex 24` makes a good key"
    )


@pytest.mark.parametrize("keys", [5, [1, 2], {"a": KEY}, (KEY, 5)])
def test_a_key_that_is_not_text_is_refused(keys: object) -> None:
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
    """The merchants of the key would depend on the order."""
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

    assert error.startswith(
        "token_keys (SSE_PUSH_TOKEN_KEYS): expected HMAC secrets of at least 32"
    )
    assert "hunter2" not in error
    assert SECRET[:31] not in error


@pytest.mark.parametrize("keys", [5, [SECRET], {"a": SECRET}])
def test_a_secret_that_is_not_text_is_refused(keys: object) -> None:
    error = error_of(token_keys=keys)

    assert error.startswith("token_keys (SSE_PUSH_TOKEN_KEYS): input should be ")
    assert SECRET not in error


@pytest.mark.parametrize("algorithms", ["HS256", "RS256, ES256", "EdDSA,HS256"])
def test_the_known_algorithms_are_accepted(algorithms: str) -> None:
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
def test_a_cookie_name_that_no_cookie_can_have_is_refused(name: str) -> None:
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
def test_a_proxy_that_is_not_a_network_is_refused(proxies: str) -> None:
    assert error_of(trusted_proxies=proxies).startswith(
        "trusted_proxies (SSE_PUSH_TRUSTED_PROXIES): "
    )


@pytest.mark.parametrize("mode", ["0660", "600", "0777"])
def test_a_mode_is_octal(mode: str) -> None:
    assert Settings.load(uds="/run/push.sock", uds_mode=mode).uds_mode == mode


@pytest.mark.parametrize("mode", ["", "0", "0066", "0400", "0668", "u=rw", "00660", "438", "01777"])
def test_a_mode_that_is_none_or_keeps_out_its_owner_is_refused(mode: str) -> None:
    assert error_of(uds="/run/push.sock", uds_mode=mode).startswith(
        "uds_mode (SSE_PUSH_UDS_MODE): string should match pattern "
    )


@pytest.mark.parametrize("prefix", ["a", "sse_push-2", "shop:staging.eu", "x" * 64])
def test_a_prefix_of_keys_is_one_that_acls_and_slots_of_a_cluster_take(prefix: str) -> None:
    assert Settings.load(key_prefix=prefix).key_prefix == prefix


@pytest.mark.parametrize(
    "prefix", ["", ":", "a:", ":a", "a::b", "a{b}", "a*", "a b", "é", "a\n", "x" * 65]
)
def test_a_prefix_of_keys_of_another_form_is_refused(prefix: str) -> None:
    assert error_of(key_prefix=prefix).startswith("key_prefix (SSE_PUSH_KEY_PREFIX): string should")


@pytest.mark.parametrize("proxies", ["10.0.0.0/8,fd00::/8", "192.0.2.7"])
def test_a_network_of_one_owner_may_be_trusted(proxies: str) -> None:
    settings = Settings.load(subscribe_auth="header", trusted_proxies=proxies)

    assert not settings.trusts_all_addresses


@pytest.mark.parametrize(
    "hosts",
    ["push.example", "localhost,*.shop.example,a_b.example", "10.0.0.1,[::1]", "*.localhost", "*"],
)
def test_hosts_are_names_without_a_port(hosts: str) -> None:
    settings = Settings.load(allowed_hosts=hosts)

    assert settings.safe()["allowed_hosts"] == hosts
    assert settings.hosts == tuple(hosts.split(","))


@pytest.mark.parametrize(
    "host",
    [
        *("", "push.example:443", "https://push.example", "Push.example", "**", "*example", "a.*"),
        *("*.example", "*.example.", "*.*.shop.example", "a.*.example", "push.example/", "[::1"),
    ],
)
def test_a_host_that_no_request_can_name_is_refused(host: str) -> None:
    assert error_of(allowed_hosts=f"push.example,{host}").startswith(
        "allowed_hosts (SSE_PUSH_ALLOWED_HOSTS): expected hosts in lower case and without a port, "
    )


OPEN = {"subscribe_auth": "none", "notify_keys": KEY}
GUARDED = {"subscribe_auth": "token", "token_keys": SECRET, "notify_keys": KEY}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_no_name_is_allowed_where_a_page_needs_no_credential(host: str) -> None:
    assert Settings.load(**OPEN, host=host).hosts == ()
    assert Settings.load(**{**GUARDED, "notify_keys": "none"}, host=host).hosts == ()
    assert Settings.load(**GUARDED, swoole_compat="on", host=host).hosts == ()


@pytest.mark.parametrize(
    "flags",
    [
        GUARDED,
        *({**OPEN, "host": host} for host in ("0.0.0.0", "::", "192.0.2.1", "push.example")),
        {**OPEN, "uds": "/run/push.sock"},
        {**OPEN, "trusted_proxies": "127.0.0.1"},
        {**OPEN, "allowed_hosts": "*"},
    ],
)
def test_any_name_is_allowed_elsewhere(flags: dict[str, str]) -> None:
    assert Settings.load(**flags).hosts == ("*",)


@pytest.mark.parametrize(
    "origins",
    [
        "https://app.example",
        "http://localhost:5173,https://app.example:8443",
        "https://a-b.example,http://[::1]:8080",
        "http://10.0.0.1",
        "https://*.shop.example,http://*.shop.example:8080,http://*.localhost:5173",
        "capacitor://localhost,ionic://localhost,tauri://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc",
        "safari-web-extension://2C127FA4-62C7-7E4F-90E5-472B45EECFDC",
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
        *(
            "https://*.com",
            "https://*.com.",
            "https://*",
            "https://*.*.shop.example",
            "*.a.example",
        ),
        *("https://a.*.example", "https://*shop.example", "capacitor://*.localhost", "file:///x"),
        *("wss://app.example", "file://localhost", "capacitor://", "capacitor://localhost/"),
        *("Capacitor://localhost", "app://a\nb", "javascript:alert(1)", "https://[*.::1]"),
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
        "redis://redis.example?db=1&socket_connect_timeout=3",
        "rediss://redis.example?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        "unix://:pass@/run/redis.sock",
        "redis+sentinel://one,two:26380,[::1]:1/mymaster",
        "rediss+sentinel://user:pass@one:26379/my-master?db=1&ssl_ca_certs=/etc/ca.pem",
        "redis+cluster://one,two:7000,[::1]:1",
        "rediss+cluster://user:pass@one:7000/?ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_the_url_of_redis_has_one_of_five_schemes(url: str) -> None:
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
        ("redis://:hunter2@host?decode_responses=true", "with redis://, got 'decode_responses'"),
        ("redis://:hunter2@host?health_check_interval=1", "got 'health_check_interval'"),
        ("redis://:hunter2@host?protocol=2", "got 'protocol'"),
        ("redis://:hunter2@host?ssl_cert_reqs=none", "got 'ssl_cert_reqs'"),
        ("unix://:hunter2@/run/redis.sock?db=0&foo", "got 'foo'"),
        ("redis://:hunter2@host?db=hunter2", "the option db as a number, got something else"),
        ("redis://:hunter2@host?socket_connect_timeout=0", "got something else"),
        (
            "rediss://:hunter2@host?ssl_cert_reqs=hunter2",
            "as none, optional or required, got something else",
        ),
        ("rediss://:hunter2@host?ssl_ca_certs=", "got something else"),
        ("redis://:hunter2@host:port", "expected a number as the port, got something else"),
        ("redis://:hunter2@", "expected a host, as in redis://127.0.0.1:6379/0, got none"),
        ("redis://:hunter2@host/hunter2", "the number of a database behind the host, as in /0"),
        ("unix://", "expected a path, as in unix:///run/redis.sock, got none"),
        ("redis+sentinel://:hunter2@one,/shop", "as in sentinel-1:26379, got none"),
        ("redis+sentinel://:hunter2@one:x/shop", "each Sentinel as HOST:PORT, got something else"),
        ("redis+sentinel://:hunter2@one,two", "as in /mymaster, and a database as ?db=1"),
        ("redis+sentinel://:hunter2@one/shop/1", "as in /mymaster, and a database as ?db=1"),
        ("redis+sentinel://" + 16 * "h," + "h/shop", "expected at most 16 Sentinels, got 17"),
        ("redis+sentinel://one/shop?ssl_cert_reqs=none", "got 'ssl_cert_reqs'"),
        ("redis+cluster://:hunter2@one,", "as in node-1:6379, got none"),
        ("redis+cluster://:hunter2@one:x", "each node as HOST:PORT, got something else"),
        ("redis+cluster://" + 64 * "h," + "h", "expected at most 64 nodes, got 65"),
        ("redis+cluster://one/1", "a cluster has one database"),
        ("redis+cluster://one?db=1", "got 'db'"),
    ],
)
def test_a_malformed_redis_url_is_refused_and_not_shown(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as failure:
        Settings.load(redis_url=url)

    assert str(failure.value).endswith(said)
    assert "hunter2" not in str(failure.value) + str(failure.value.__cause__)


@pytest.mark.parametrize("url", [None, "redis://redis.example/0"])
@pytest.mark.parametrize("name", ["sentinel_user", "sentinel_password"])
def test_what_sentinels_ask_for_needs_sentinels(name: str, url: str | None) -> None:
    said = "need a redis_url of Sentinels: redis+sentinel://HOST:PORT/SERVICE"
    with pytest.raises(ConfigError, match=said.replace("+", r"\+")) as failure:
        Settings.load(redis_url=url, **{name: PASSWORD})

    assert PASSWORD not in str(failure.value)
    Settings.load(redis_url="redis+sentinel://h/shop", **{name: PASSWORD})


@pytest.mark.parametrize("url", [5, f"redis://:{PASSWORD}@[::1", [PASSWORD]])
def test_a_redis_url_that_is_not_text_or_malformed_is_refused_and_not_shown(url: object) -> None:
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


def test_the_absence_of_keys_is_shown() -> None:
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


@pytest.mark.parametrize(
    ("url", "has_one"),
    [
        ("redis://127.0.0.1:6379/0", False),
        ("redis://user@redis.example", False),
        ("redis://user:@redis.example", False),
        ("rediss://redis.example?ssl_certfile=/etc/cert.pem", False),
        (f"redis://:{PASSWORD}@redis.example", True),
        (f"rediss://redis.example?db=1&ssl_password={PASSWORD}", True),
        (f"unix://:{PASSWORD}@/run/redis.sock", True),
    ],
)
def test_a_password_in_a_url_is_recognized(url: str, *, has_one: bool) -> None:
    assert has_password(url) is has_one
