from __future__ import annotations

import ipaddress

import pytest

from sse_push.access.proxies import Proxies

NETWORKS = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")]


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("10.0.0.1", True),
        ("10.255.255.255", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db8::1%eth0", True),
        ("2001:db9::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("::1", False),
        ("127.0.0.1", False),
        ("", False),
        ("testclient", False),
        ("010.0.0.1", False),
    ],
)
@pytest.mark.parametrize("is_unix_socket", [False, True])
def test_an_address_is_trusted_if_it_is_in_a_network(
    host: str, *, is_trusted: bool, is_unix_socket: bool
) -> None:
    proxies = Proxies(NETWORKS, is_unix_socket=is_unix_socket)

    assert proxies.trusts((host, 1)) is is_trusted


def test_no_address_is_trusted_without_networks() -> None:
    assert not Proxies([], is_unix_socket=False).trusts(("127.0.0.1", 1))


@pytest.mark.parametrize("is_unix_socket", [False, True])
def test_a_peer_without_an_address_is_trusted_on_a_unix_socket_only(
    *, is_unix_socket: bool
) -> None:
    assert Proxies(NETWORKS, is_unix_socket=is_unix_socket).trusts(None) is is_unix_socket


# -- which address a client has


PROXY = ("10.0.0.1", 1)


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        (["192.0.2.99"], "192.0.2.99"),
        (["203.0.113.5, 192.0.2.99"], "192.0.2.99"),
        (["203.0.113.5", "192.0.2.99"], "192.0.2.99"),
        (["192.0.2.99:4711"], "192.0.2.99"),
        (["::ffff:192.0.2.99"], "192.0.2.99"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2::7%eth0"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::7]"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2::7]:4711"], "2001:db8:1:2::/64"),
        ([], None),
        ([""], None),
        (["192.0.2.99,"], None),
        (["192.0.2.99, unknown"], None),
        (["192.0.2.99:"], None),
        (["[]"], None),
        (["192.0.2.999"], None),
    ],
)
def test_the_last_forwarded_address_is_the_one_that_a_trusted_proxy_added(
    forwarded_for: list[str], address: str | None
) -> None:
    over_tcp = Proxies(NETWORKS, is_unix_socket=False)
    over_unix = Proxies([], is_unix_socket=True)

    assert over_tcp.client_address(PROXY, forwarded_for) == address
    assert over_unix.client_address(None, forwarded_for) == address


@pytest.mark.parametrize("byte", [chr(byte) for byte in range(256) if not chr(byte).isdigit()])
def test_no_byte_but_white_space_may_stand_around_an_address(byte: str) -> None:
    proxies = Proxies(NETWORKS, is_unix_socket=False)
    address = "203.0.113.5" if byte in " \t" else None

    assert proxies.client_address(PROXY, [f"{byte}203.0.113.5"]) == (
        "203.0.113.5" if byte == "," else address
    )
    assert proxies.client_address(PROXY, [f"203.0.113.5{byte}"]) == (
        "203.0.113.5" if byte == "%" else address
    )


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.8", "192.0.2.8"),
        ("::ffff:192.0.2.8", "192.0.2.8"),
        ("2001:db9::1", "2001:db9::/64"),
        ("testclient", None),
    ],
)
def test_the_header_of_another_peer_is_ignored(host: str, address: str | None) -> None:
    proxies = Proxies(NETWORKS, is_unix_socket=False)

    assert proxies.client_address((host, 1), ["203.0.113.5"]) == address
    assert proxies.client_address((host, 1), []) == address


def test_a_broken_connection_has_no_address() -> None:
    assert Proxies(NETWORKS, is_unix_socket=False).client_address(None, ["203.0.113.5"]) is None
