from __future__ import annotations

import contextlib
import dataclasses
import random

import pytest

from sse_push.access.grant import Grant, hash_claim
from sse_push.access.revocation import Revocation
from sse_push.errors import EndReason, Unauthorized
from sse_push.hub import State
from tests.harness.clock import PACE, Timer
from tests.unit.hub import KEEP_S, PATIENT, Client, Service

# -- expiry


def announcements(client: Client) -> list[tuple[float, int]]:
    """Return when the end of a client's token was announced, and in how many seconds it comes."""
    return [
        (at, -refresh.version)
        for at, frame in client.frames
        for refresh in frame
        if refresh.version < 0
    ]


def test_the_end_of_a_token_is_announced_and_its_client_ends_in_time(service: Service) -> None:
    client, other = service.open(expires_in_s=100), service.open()

    service.clock.advance(100)
    service.change("late")
    service.clock.advance(1)

    ((announced_at, announced_s),) = announcements(client)
    ((ended_at, reason),) = client.ends
    assert 1069.5 <= announced_at <= 1070
    assert announced_s == 30
    assert 1099.5 <= ended_at <= 1100
    assert reason is EndReason.TOKEN_EXPIRED
    assert client.subscription.grant == ("42", 1100, None, None, None)
    assert "late" not in [refresh.topic for refresh in client.refreshes]
    assert "late" in [refresh.topic for refresh in other.refreshes]
    assert (announcements(other), other.ends) == ([], [])


def test_age_may_end_a_client_before_its_token_does() -> None:
    service = Service(dataclasses.replace(PACE, max_connection_age_s=60))
    client = service.open(expires_in_s=100)

    service.clock.advance(200)

    assert [reason for _, reason in client.ends] == [EndReason.CONNECTION_AGE]
    assert service.clock.timers == []


def test_a_client_that_leaves_has_no_end_planned(service: Service) -> None:
    client = service.open(expires_in_s=100)

    service.hub.unsubscribe(client.subscription)
    service.clock.advance(200)

    assert client.subscription.expiry is None
    assert (client.frames, client.ends, service.clock.timers) == ([], [], [])


def test_a_blocked_client_gets_the_announcement_when_it_drains() -> None:
    service = Service(PATIENT)
    client = service.open(expires_in_s=50)
    service.clock.advance(10)
    client.is_taking = False
    service.clock.advance(20)
    refused = client.refused
    client.drained()
    service.clock.advance(1)

    ((announced_at, announced_s),) = announcements(client)
    assert refused <= 2  # blocked, it is not offered the announcement again
    assert 1030 <= announced_at <= 1030.5
    assert announced_s == 20


def test_a_client_that_refuses_the_announcement_is_blocked(service: Service) -> None:
    client = service.open(expires_in_s=50)
    service.clock.advance(24)
    client.is_taking = False
    service.clock.advance(1)
    assert client.subscription.state is State.BLOCKED

    service.clock.advance(20)

    assert [reason for _, reason in client.ends] == [EndReason.STALLED]


def test_a_blocked_client_ends_when_its_token_expires(service: Service) -> None:
    client = service.open(expires_in_s=20)
    service.clock.advance(9)
    client.is_taking = False
    service.change("seats")

    service.clock.advance(11)

    ((ended_at, reason),) = client.ends
    assert reason is EndReason.TOKEN_EXPIRED
    assert 1019.5 <= ended_at <= 1020


def test_a_joining_client_ends_when_its_token_expires(service: Service) -> None:
    client = service.join(expires_in_s=5)
    client.is_taking = False

    service.clock.advance(5)

    assert [reason for _, reason in client.ends] == [EndReason.TOKEN_EXPIRED]


# -- revocation


def open_with(service: Service, grant: Grant) -> Client:
    """Subscribe a client by a token, and admit it."""
    client = Client(service, 0)
    client.subscription = service.hub.subscribe(grant, client)
    service.compare(client)
    service.hub.admit(client.subscription, ())
    return client


def by_token(
    merchant_id: str = "42", *, iat: float | None = 900.0, sub: str = "u", jti: str = "t"
) -> Grant:
    return Grant(merchant_id, 2000.0, hash_claim(sub), hash_claim(jti), iat)


def ends(*clients: Client) -> list[list[EndReason]]:
    return [[reason for _, reason in client.ends] for client in clients]


REVOKED = [EndReason.REVOKED]


def test_the_revocation_of_a_merchant_ends_its_connections_and_no_others(service: Service) -> None:
    old, none, new = (open_with(service, by_token(iat=iat)) for iat in (900.0, None, 999.5))
    other = open_with(service, by_token("43"))

    service.hub.revoke(Revocation("42"), 999.0)

    assert ends(old, none, new, other) == [REVOKED, REVOKED, [], []]
    assert len(service.hub) == 2


@pytest.mark.parametrize(
    ("revocation", "is_ended"),
    [
        (Revocation.naming("42", "t"), [True, False, False]),
        (Revocation.naming("42", None, "u"), [True, True, False]),
        (Revocation.naming("42", "s", "v"), [False, True, True]),
        (Revocation.naming("43", "t", "u"), [False, False, False]),
    ],
)
def test_a_revocation_ends_the_connections_of_its_token_or_subject(
    service: Service, revocation: Revocation, is_ended: list[bool]
) -> None:
    clients = [
        open_with(service, by_token(jti="t", sub="u")),
        open_with(service, by_token(jti="s", sub="u")),
        open_with(service, by_token(jti="s2", sub="v")),
    ]

    service.hub.revoke(revocation, 1000.0)

    assert ends(*clients) == [REVOKED if each else [] for each in is_ended]


def test_a_client_that_comes_after_its_revocation_is_refused(
    service: Service,
) -> None:
    service.hub.revoke(Revocation.naming("42", "t"), 1000.0)

    with pytest.raises(Unauthorized, match="expected a token that was not revoked") as refusal:
        open_with(service, by_token())

    assert refusal.value.challenge == 'Bearer error="invalid_token"'
    assert (len(service.hub), service.hub.merchant_count, service.source.calls) == (0, 0, [])
    open_with(service, by_token(jti="another"))


def test_a_client_that_was_checked_before_its_revocation_is_refused(
    service: Service,
) -> None:
    """A revocation between the first check and ``subscribe`` is not overlooked."""
    service.hub.require_unrevoked(by_token())
    service.hub.revoke(Revocation("42"), 1000.0)

    with pytest.raises(Unauthorized):
        open_with(service, by_token())


def test_a_revocation_is_remembered_before_a_connection_ends(service: Service) -> None:
    """A client that comes back at once, while its connection ends, is refused."""
    came_back: list[bool] = []

    class Eager(Client):
        def end(self, reason: EndReason) -> None:
            super().end(reason)
            with pytest.raises(Unauthorized):
                service.hub.subscribe(by_token(), self)
            came_back.append(False)

    client = Eager(service, 0)
    client.subscription = service.hub.subscribe(by_token(), client)

    service.hub.revoke(Revocation("42"), 1000.0)

    assert came_back == [False]


def test_a_token_that_was_given_after_a_revocation_is_let_in_and_stays(service: Service) -> None:
    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.advance(1)
    client = open_with(service, by_token(iat=1001.0))

    service.hub.revoke(Revocation("42"), 1000.0)  # read again

    assert ends(client) == [[]]


def test_a_connection_without_a_token_may_come_back_after_a_revocation(
    service: Service,
) -> None:
    client, other = service.open(), service.open("43")

    service.hub.revoke(Revocation("42"), 1000.0)
    again = service.open()
    service.hub.revoke(Revocation("42"), 1000.0)  # read again

    assert ends(client, other, again) == [REVOKED, [], []]

    service.clock.advance(1)
    service.hub.revoke(Revocation("42"), 1001.0)

    assert ends(other, again) == [[], REVOKED]


def test_the_revocation_of_a_token_ends_no_connection_without_a_token(service: Service) -> None:
    client = service.open()

    service.hub.revoke(Revocation.naming("42", "t", "u"), 1000.0)

    assert ends(client) == [[]]


def test_a_revocation_ends_joining_and_blocked_clients(service: Service) -> None:
    joining = Client(service, 0)
    joining.subscription = service.hub.subscribe(by_token(), joining)
    blocked = open_with(service, by_token())
    blocked.is_taking = False
    service.change("a")

    service.hub.revoke(Revocation("42"), 1000.0)

    assert ends(joining, blocked) == [REVOKED, REVOKED]


def test_a_revocation_during_a_fan_out_leaves_nothing_to_be_offered(service: Service) -> None:
    clients = [open_with(service, by_token()) for _ in range(100)]
    clients[0].cost_s = 0.01  # longer than a slice
    service.change("a")
    assert service.hub._fan_outs._active

    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.run_soon()

    assert ends(*clients) == [REVOKED] * 100
    assert not clients[-1].frames


def test_a_revocation_of_many_connections_ends_them_in_slices(service: Service) -> None:
    clients = [open_with(service, by_token()) for _ in range(100)]
    gone = clients[50]
    service.clock.cost_s = 0.001

    service.hub.revoke(Revocation("42"), 1000.0)
    first = len(service.hub)
    service.hub.unsubscribe(gone.subscription)
    service.clock.run_soon()
    second = len(service.hub)
    while service.clock.soon:
        service.clock.run_soon()

    assert 100 > first > second > 0
    assert len(service.hub) == 0
    assert [client for client in clients if ends(client) != [REVOKED]] == [gone]


def test_a_mark_of_all_ends_no_connection_that_nobody_revoked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.access.revocation.MERCHANT_MARKS_MAX", 2)
    kept, named = open_with(service, by_token(jti="kept")), open_with(service, by_token(jti="t2"))

    for number in range(3):
        service.hub.revoke(Revocation.naming("42", f"t{number}"), 1000.0)

    assert len(service.revocations) == 1
    assert ends(kept, named) == [[], REVOKED]
    with pytest.raises(Unauthorized):
        open_with(service, by_token(jti="kept"))


def test_a_merged_revocation_of_a_server_whose_clock_is_behind_ends_its_connections(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sse_push.access.revocation.MERCHANT_MARKS_MAX", 2)
    client = open_with(service, by_token(jti="mine"))
    for number in range(3):
        service.hub.revoke(Revocation.naming("42", f"t{number}"), 1000.0)

    service.hub.revoke(Revocation.naming("42", "mine"), 990.0)

    assert ends(client) == [REVOKED]


def test_the_revocation_of_all_ends_and_refuses_what_was_issued_until_then(
    service: Service,
) -> None:
    old = [open_with(service, by_token(merchant_id, iat=900.0)) for merchant_id in ("42", "43")]
    new = open_with(service, by_token(iat=990.0))

    service.hub.revoke_all(901.0)

    assert ends(*old, new) == [REVOKED, REVOKED, []]
    with pytest.raises(Unauthorized):
        open_with(service, by_token("44", iat=900.0))
    assert len(timers_to_forget(service)) == 1


def timers_to_forget(service: Service) -> list[Timer]:
    forget = service.hub._grants._forget
    return [timer for timer in service.clock.timers if timer.callback == forget]


def test_a_revocation_is_forgotten_when_it_covers_no_valid_token_any_more(service: Service) -> None:
    service.hub.revoke(Revocation("42"), 1000.0)
    service.clock.advance(100)
    service.hub.revoke(Revocation("43"), 1100.0)
    assert len(timers_to_forget(service)) == 1

    service.clock.advance(KEEP_S - 101)
    with pytest.raises(Unauthorized):
        open_with(service, by_token(iat=None))
    service.clock.advance(61)
    open_with(service, by_token(iat=None))
    assert len(service.revocations) == 1

    service.clock.advance(100)
    assert len(service.revocations) == 0
    service.clock.advance(60)
    assert timers_to_forget(service) == []


@pytest.mark.parametrize("seed", range(50))
def test_a_revoked_client_is_never_live(seed: int) -> None:
    """First checks, subscriptions, revocations and slices, in random orders."""
    chance = random.Random(seed)
    service = Service()
    service.clock.cost_s = 0.0007
    live: list[tuple[Grant, Client]] = []
    asked: list[Grant] = []

    def ask() -> None:
        iat = chance.choice([None, service.clock.now - chance.uniform(0, 5)])
        grant = by_token(
            chance.choice("ab"), iat=iat, sub=chance.choice("uv"), jti=chance.choice("st")
        )
        with contextlib.suppress(Unauthorized):
            service.hub.require_unrevoked(grant)
            asked.append(grant)

    def enter() -> None:
        if asked:
            grant = asked.pop(chance.randrange(len(asked)))
            is_revoked = service.revocations.revokes(grant)
            try:
                live.append((grant, open_with(service, grant)))
                assert not is_revoked
            except Unauthorized:
                assert is_revoked

    def revoke() -> None:
        revocation = Revocation.naming(
            chance.choice("ab"), chance.choice([None, "s"]), chance.choice([None, "u"])
        )
        service.hub.revoke(revocation, service.clock.now - chance.uniform(0, 2))

    for _ in range(300):
        chance.choice([ask, enter, ask, enter, ask, enter, service.clock.run_soon, revoke])()
        service.clock.now += 0.1
        if not service.clock.soon:
            for grant, client in live:
                assert service.revocations.revokes(grant) is (ends(client) == [REVOKED])
