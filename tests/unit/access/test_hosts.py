from __future__ import annotations

import pytest

from sse_push.access.hosts import ANY, Hosts
from sse_push.errors import HostNotAllowed

SHOP = Hosts(("push.example", "*.shop.example"))


def headers_of(*hosts: str) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"evil.example"), *((b"host", host.encode("latin-1")) for host in hosts)]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:80", "app.localhost:8000", "a.b-c.localhost"),
        *("127.0.0.1", "127.0.0.1:8000", "192.0.2.7:80", "[::1]:8000", "[2001:DB8::1]", "", ":80"),
    ],
)
def test_an_address_and_localhost_pass_whatever_is_allowed(host: str) -> None:
    for hosts in (Hosts(()), SHOP, Hosts((ANY,))):
        hosts.check(headers_of(host))


def test_a_request_without_host_passes() -> None:
    Hosts(()).check(headers_of())


@pytest.mark.parametrize(
    "host",
    [
        *(
            "push.example",
            "push.example:443",
            "Push.Example:8080",
            "push.example.",
            "push.example:",
        ),
        *("a.shop.example", "A-1.shop.example:8443", "xn--mnchen-3ya.shop.example"),
    ],
)
def test_a_name_that_is_allowed_passes(host: str) -> None:
    SHOP.check(headers_of(host))
    with pytest.raises(HostNotAllowed):
        Hosts(()).check(headers_of(host))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "example", "shop.example", "a.b.shop.example"),
        *("push.example.evil.example", "xpush.example", "127.0.0.1.evil.example", "1.2.3"),
        *("localhost.evil.example", "evil.localhost.example", "xlocalhost", "[::1].evil.example"),
        *(
            ".shop.example",
            "x@.shop.example",
            "x/.shop.example",
            "push.example/x",
            "push.example:x",
        ),
        *(
            "*.shop.example",
            "*",
            "push.example, evil.example",
            "push.example evil",
            "\xe9",
            "[evil]",
        ),
        *("push.example..", "127.0.0.1\x00", "push.example\n", " "),
    ],
)
def test_another_host_is_refused_with_what_to_set(host: str) -> None:
    for hosts in (Hosts(()), SHOP):
        with pytest.raises(HostNotAllowed) as caught:
            hosts.check(headers_of(host))

        assert str(caught.value) == (
            f"expected a host of allowed_hosts (SSE_PUSH_ALLOWED_HOSTS), got {host!a}"
        )
    Hosts((ANY,)).check(headers_of(host))


def test_a_long_host_is_shown_in_part() -> None:
    with pytest.raises(HostNotAllowed) as caught:
        Hosts(()).check(headers_of("x" * 10_000))

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("hosts", [("evil.example", "localhost"), ("localhost", "evil.example")])
def test_a_second_host_is_checked_as_the_first_is(hosts: tuple[str, str]) -> None:
    with pytest.raises(HostNotAllowed):
        Hosts(()).check(headers_of(*hosts))


def test_few_values_are_remembered_and_none_that_is_refused() -> None:
    hosts = Hosts(("*.shop.example",))
    long = "x" * 300 + ".shop.example"
    for number in range(200):
        hosts.check(headers_of(f"a{number}.shop.example"))
        hosts.check(headers_of(long))
        with pytest.raises(HostNotAllowed):
            hosts.check(headers_of(f"a{number}.evil.example"))

    assert hosts._passed == {f"a{number}.shop.example".encode() for number in range(64)}


@pytest.mark.parametrize("byte", [bytes([byte]) for byte in range(256)])
def test_no_byte_around_a_name_is_overlooked(byte: bytes) -> None:
    """A proxy or a browser may read such a name as another one."""
    hosts = Hosts(("push.example",))
    for value in (byte + b"push.example", b"push" + byte + b"example", b"push.example" + byte):
        if value in (b"push.example", b"push.example.", b"push.example:"):
            hosts.check([(b"host", value)])
        else:
            with pytest.raises(HostNotAllowed):
                hosts.check([(b"host", value)])
