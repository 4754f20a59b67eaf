from __future__ import annotations

import ipaddress

import pytest

from sse_push.proxies import Proxies

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

    assert proxies.trust((host, 1)) is is_trusted


def test_without_networks_no_address_is_trusted() -> None:
    assert not Proxies([], is_unix_socket=False).trust(("127.0.0.1", 1))


@pytest.mark.parametrize("is_unix_socket", [False, True])
def test_without_an_address_the_kind_of_our_own_socket_decides(*, is_unix_socket: bool) -> None:
    assert Proxies(NETWORKS, is_unix_socket=is_unix_socket).trust(None) is is_unix_socket
