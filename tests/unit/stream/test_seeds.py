"""What the URL of a cluster says."""

from __future__ import annotations

import pytest

from sse_push.stream.address import Place
from sse_push.stream.seeds import Seeds, is_cluster


def test_a_url_names_nodes_and_as_whom_we_come_to_each() -> None:
    seeds = Seeds.parse("redis+cluster://me:pass%2Fword@one,two:7000,[::1]:7001")

    assert seeds.places == (Place("one", 6379), Place("two", 7000), Place("::1", 7001))
    address = seeds.at(Place("three", 9))
    assert (address.host, address.port) == ("three", 9)
    assert (address.user, address.password, address.tls, address.db) == ("me", "pass/word", None, 0)
    assert address.is_of_cluster
    assert address.needs_primary
    assert not seeds.has_tls


def test_with_tls_each_node_is_reached_by_tls() -> None:
    seeds = Seeds.parse("rediss+cluster://one?ssl_ca_certs=/ca.pem&socket_connect_timeout=3")

    assert seeds.has_tls
    address = seeds.at(Place("two", 1))
    assert address.tls == {"ssl_ca_certs": "/ca.pem"}
    assert address.connect_timeout_s == 3


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("redis+cluster://one", True),
        ("rediss+cluster://one", True),
        ("redis://one", False),
        ("redis+sentinel://one/+cluster", False),
        ("unix:///run/redis.sock?password=+cluster://", False),
    ],
)
def test_a_cluster_is_known_by_its_scheme(url: str, *, is_one: bool) -> None:
    assert is_cluster(url) is is_one
