"""URLs of Redis, and what each of their parts means."""

from __future__ import annotations

import asyncio

import pytest

from sse_push.settings import REDIS_OPTIONS, REDISS_OPTIONS
from sse_push.stream.address import Address
from sse_push.stream.failures import RedisConnectionError


@pytest.mark.parametrize(
    ("url", "address", "text"),
    [
        ("redis://", Address(), "localhost:6379"),
        ("redis://redis.example/3", Address("redis.example", db=3), "redis.example:6379"),
        ("redis://:1234/3?db=4", Address(port=1234, db=4), "localhost:1234"),
        ("redis://[::1]:1234", Address("::1", 1234), "::1:1234"),
        ("redis://127.0.0.1/none", Address("127.0.0.1"), "127.0.0.1:6379"),
        ("redis://:a%2Fb@h", Address("h", password="a/b"), "h:6379"),
        ("redis://me:p%40ss@h", Address("h", user="me", password="p@ss"), "h:6379"),
        ("redis://me@h", Address("h", user="me"), "h:6379"),
        ("redis://h?socket_connect_timeout=3", Address("h", connect_timeout_s=3), "h:6379"),
        ("unix:///run/a%20b.sock", Address(path="/run/a b.sock"), "/run/a b.sock"),
        ("unix:///r.sock?db=2", Address(path="/r.sock", db=2), "/r.sock"),
        ("unix://me:pw@/r", Address(path="/r", user="me", password="pw"), "/r"),
        ("rediss://h", Address("h", tls={}), "h:6379"),
        ("rediss://h?ssl_ca_certs=%2Fca", Address("h", tls={"ssl_ca_certs": "/ca"}), "h:6379"),
    ],
)
def test_a_url_says_where_a_server_is_and_who_we_are(url: str, address: Address, text: str) -> None:
    assert Address.parse(url) == address
    assert str(address) == text


@pytest.mark.parametrize("name", REDISS_OPTIONS)
def test_every_option_that_the_url_may_have_is_known(name: str) -> None:
    values = {"ssl_cert_reqs": "none", "ssl_check_hostname": "false"}
    address = Address.parse(f"rediss://h?{name}={values.get(name, '1')}")

    assert address != Address("h", tls={})
    assert (name in (address.tls or {})) == (name not in REDIS_OPTIONS)


def test_a_password_is_in_no_text_of_an_address() -> None:
    address = Address.parse("rediss://me:secret@h?ssl_password=secret")

    assert "secret" not in repr(address) + str(address)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ("ssl_ca_certs=/none", r"expected files of TLS in ssl_ca_certs, got: \[Errno 2\]"),
        (
            "ssl_certfile=/none&ssl_keyfile=/also&ssl_password=secret",
            "expected files of TLS in ssl_certfile, ssl_keyfile, got: ",
        ),
        ("ssl_keyfile=/none", "expected ssl_certfile beside ssl_keyfile, got none"),
    ],
)
async def test_files_of_tls_that_are_missing_are_named(options: str, cause: str) -> None:
    address = Address.parse(f"rediss://127.0.0.1:1?{options}")

    with pytest.raises(RedisConnectionError, match=cause) as failure:
        await address.reach(asyncio.Protocol, within_s=1)

    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("url", ["redis://a..b", "unix:///a%00b", "redis://" + "a" * 70])
async def test_an_address_that_can_be_none_is_an_error_as_any_other(url: str) -> None:
    with pytest.raises(RedisConnectionError, match=r"^Error.* connecting to "):
        await Address.parse(url).reach(asyncio.Protocol, within_s=1)
