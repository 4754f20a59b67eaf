"""Which primary has which slots, by what nodes say."""

from __future__ import annotations

import pytest

from sse_push.stream.address import Place
from sse_push.stream.slots import NO_SLOTS, SLOTS, Node, merged, parse_nodes, slot_of

ASKED = Place("asked.example", 7)
A, B, C = "a" * 40, "b" * 40, "c" * 40


def line(
    node_id: str,
    address: str = "10.0.0.1:6379@16379",
    flags: str = "master",
    epoch: object = 1,
    *slots: str,
) -> str:
    return " ".join([node_id, address, flags, "-", "0", "0", str(epoch), "connected", *slots])


def nodes(*lines: str, by_name: bool = False) -> list[Node]:
    return parse_nodes("\n".join(lines).encode() + b"\n", ASKED, by_name=by_name)


def test_a_line_of_cluster_nodes_is_a_node() -> None:
    (node,) = nodes(
        line(A, "10.0.0.1:6379@16379,one.example,shard-id=x", "myself,master", 5, "0-5460", "7000")
    )

    assert (node.id, node.place, node.epoch) == (A, Place("10.0.0.1", 6379), 5)
    assert (node.is_primary, node.is_failed) == (True, False)
    assert node.slots == ((0, 5460), (7000, 7000))


def test_with_tls_a_node_is_at_its_name_if_it_has_one() -> None:
    one, two = nodes(line(A, "10.0.0.1:1@2,one.example"), line(B, "10.0.0.2:1@2,"), by_name=True)

    assert (one.place.host, two.place.host) == ("one.example", "10.0.0.2")


def test_an_address_of_version_6_is_one() -> None:
    assert nodes(line(A, "fd00::1:6379@16379"))[0].place == Place("fd00::1", 6379)


def test_a_node_that_knows_no_address_of_its_own_is_where_it_was_asked() -> None:
    assert nodes(line(A, ":0@0", "myself,master"))[0].place == ASKED


def test_a_replica_and_a_failed_primary_are_told_apart() -> None:
    replica, failed, maybe = nodes(
        line(A, flags="slave"), line(B, flags="master,fail"), line(C, flags="master,fail?")
    )

    assert [each.is_primary for each in (replica, failed, maybe)] == [False, True, True]
    assert [each.is_failed for each in (replica, failed, maybe)] == [False, True, False]


@pytest.mark.parametrize(
    "text",
    [
        line(A, flags="master,noaddr"),
        line(A, flags="handshake"),
        line(A, "nowhere"),
        line(A, "10.0.0.1:x@1"),
        line(A, epoch="new"),
        "ERR unknown",
        "",
    ],
)
def test_what_is_no_node_that_can_be_reached_is_ignored(text: str) -> None:
    assert nodes(text) == []


@pytest.mark.parametrize("reply", [None, 7, [b"x"], Exception("no")])
def test_another_reply_has_no_nodes(reply: object) -> None:
    assert parse_nodes(reply, ASKED) == []


@pytest.mark.parametrize("text", ["[93->-aaaa]", "[93-<-aaaa]", "x-7", "7-x", "9-7", "7-16384"])
def test_a_slot_on_its_way_or_no_range_is_no_claim(text: str) -> None:
    assert nodes(line(A, "h:1@2", "master", 1, text))[0].slots == ()


def test_a_slot_is_on_its_way_if_its_owner_says_so() -> None:
    others = nodes(line(A, "h:1@2", "master", 1, "0-99"), line(B, "i:1@2", "master", 2, "100-199"))
    leaving = nodes(line(A, "h:1@2", "myself,master", 1, "0-99", f"[7->-{B}]", f"[8-<-{B}]"))
    coming = nodes(line(B, "i:1@2", "myself,master", 2, "100-199", f"[7-<-{A}]", "[120-x]"))

    assert merged([others, leaving, coming]).moving == {7}

    owned = nodes(line(B, "i:1@2", "myself,master", 9, "7", "100-199"))
    assert merged([others, leaving, owned]).moving == frozenset()


def test_each_slot_belongs_to_its_newest_claim() -> None:
    before = nodes(line(A, "a:1@1", "master", 3, "0-99"), line(B, "b:1@1", "master", 2, "100-199"))
    after = nodes(line(A, "a:1@1", "master", 3, "0-98"), line(B, "b:1@1", "master", 4, "99-199"))

    for views in ([before, after], [after, before], [after]):
        found = merged(views)
        assert (found.owner_of(98), found.owner_of(99), found.owner_of(200)) == (A, B, "")


def test_what_a_node_says_of_itself_counts_before_what_others_say_of_it() -> None:
    # A has given slot 7 to B, and has a newer epoch for another slot since; C has not heard of B.
    of_a = nodes(line(A, "a:1@1", "myself,master", 5, "8-99"), line(B, "b:1@1", "master", 4, "7"))
    of_c = nodes(
        line(A, "a:1@1", "master", 5, "7-99"),
        line(B, "b:1@1", "master", 2),
        line(C, "c:1@1", "myself,master", 1, "100"),
    )

    for views in ([of_a, of_c], [of_c, of_a]):
        found = merged(views)
        assert [found.owner_of(slot) for slot in (7, 8, 100)] == [B, A, C]


def test_what_a_node_has_claimed_since_it_was_asked_counts() -> None:
    of_a = nodes(line(A, "a:1@1", "myself,master", 3, "0-7"), line(B, "b:1@1", "master", 2, "8"))
    same_epoch = nodes(line(A, "a:1@1", "master", 3, "0-7", "9"))
    newer_epoch = nodes(line(A, "a:1@1", "master", 4, "0-8"))

    assert merged([of_a, same_epoch]).owner_of(9) == A
    assert merged([of_a, newer_epoch]).owner_of(8) == A


def test_a_primary_that_has_lost_all_its_slots_is_none_any_more() -> None:
    cut_off = nodes(line(A, "a:1@1", "master", 3, "0-99"))
    others = nodes(line(A, "a:1@1", "master,fail", 3), line(B, "b:1@1", "master", 9, "0-99"))

    found = merged([cut_off, others])

    assert list(found.nodes) == [B]
    assert found.owner_of(7) == B


def test_replicas_have_no_slots_and_a_failed_primary_keeps_those_that_nobody_took() -> None:
    found = merged(
        [nodes(line(A, "a:1@1", "master,fail", 3, "0-9"), line(B, "b:1@1", "slave", 3, "0-9"))]
    )

    assert found.owner_of(9) == A
    assert found.nodes[A].is_failed


def test_one_view_that_calls_a_primary_failed_is_enough() -> None:
    views = [nodes(line(A, "a:1@1", flags, 3, "0-9")) for flags in ("myself,master", "master,fail")]

    assert merged(views).nodes[A].is_failed


def test_without_a_view_nobody_has_any_slot() -> None:
    assert merged([]) == NO_SLOTS
    assert len(NO_SLOTS.owners) == SLOTS


def test_the_slot_of_a_key_is_that_of_what_stands_in_its_braces() -> None:
    assert slot_of("123456789") == 12_739  # the example of the specification
    assert slot_of("sse_push:{42}") == slot_of(b"42")
