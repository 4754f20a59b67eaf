from __future__ import annotations

import random

import pytest

from sse_push.access.grant import Grant
from sse_push.access.revocation import CLAIM_BYTES, Revocation, Revocations
from sse_push.errors import InvalidRevocation

KEEP_S = 3600.0
APART_S = 5.0


class Memory(Revocations):
    """Revocations with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 10_000.0
        super().__init__(KEEP_S, APART_S, lambda: self.now)

    def remembered_marks(self) -> int:
        return len(self._order)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def grant(
    merchant_id: str = "42",
    *,
    iat: float | None = None,
    sub: str | None = None,
    jti: str | None = None,
) -> Grant:
    return Grant(merchant_id, 20_000.0, sub, jti, iat)


# -- the JSON and the fields of a revocation


@pytest.mark.parametrize(
    ("value", "revocation"),
    [
        ({"merchant_id": "42"}, Revocation("42")),
        ({"merchant_id": 42}, Revocation("42")),
        ({"merchant_id": "42", "jti": None, "sub": None}, Revocation("42")),
        ({"merchant_id": "42", "jti": "t-1"}, Revocation("42", "t-1")),
        ({"merchant_id": "42", "sub": "u-1"}, Revocation("42", None, "u-1")),
        ({"merchant_id": "42", "jti": "t", "sub": "ü\n"}, Revocation("42", "t", "ü\n")),
        (
            {"merchant_id": "42", "jti": "x" * CLAIM_BYTES},
            Revocation("42", "x" * CLAIM_BYTES),
        ),
    ],
)
def test_a_revocation_names_a_merchant_and_maybe_a_token_or_a_subject(
    value: object, revocation: Revocation
) -> None:
    assert Revocation.from_value(value) == revocation


OF_A_CLAIM = f"expected text of 1 to {CLAIM_BYTES} bytes, got "


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "expected a JSON object with merchant_id, got a JSON array"),
        ("42", "expected a JSON object with merchant_id, got '42' (str)"),
        (None, "expected a JSON object with merchant_id, got None (NoneType)"),
        ({}, "merchant_id: expected 1 to 64 characters"),
        ({"jti": "t"}, "merchant_id: expected 1 to 64 characters"),
        ({"merchant_id": "4 2"}, "merchant_id: expected 1 to 64 characters"),
        ({"merchant_id": "*"}, "merchant_id: expected 1 to 64 characters"),
        ({"merchant_id": True}, "merchant_id: expected 1 to 64 characters"),
        ({"merchant_id": ["42"]}, "merchant_id: expected 1 to 64 characters"),
        (
            {"merchant_id": "42", "token_id": "t"},
            "expected only the fields merchant_id, jti, sub, got 'token_id'",
        ),
        (
            {"merchant_id": "42", "topic": "t"},
            "expected only the fields merchant_id, jti, sub, got 'topic'",
        ),
        ({"merchant_id": "42", "jti": ""}, f"jti: {OF_A_CLAIM}''"),
        ({"merchant_id": "42", "sub": ""}, f"sub: {OF_A_CLAIM}''"),
        ({"merchant_id": "42", "jti": 7}, f"jti: {OF_A_CLAIM}7"),
        ({"merchant_id": "42", "sub": ["u"]}, f"sub: {OF_A_CLAIM}['u']"),
        ({"merchant_id": "42", "sub": False}, f"sub: {OF_A_CLAIM}False"),
        ({"merchant_id": "42", "jti": "x" * (CLAIM_BYTES + 1)}, f"jti: {OF_A_CLAIM}'xxx"),
        ({"merchant_id": "42", "jti": "ü" * CLAIM_BYTES}, f"jti: {OF_A_CLAIM}'\\xfc"),
        ({"merchant_id": "42", "jti": "\ud800"}, "jti: expected text, got half a surrogate pair"),
    ],
)
def test_a_malformed_revocation_is_refused_with_what_was_expected(value: object, text: str) -> None:
    with pytest.raises(InvalidRevocation) as refusal:
        Revocation.from_value(value)

    assert str(refusal.value).startswith(text)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation("42"),
        Revocation("42", "t-1"),
        Revocation("42", None, "u-1"),
        Revocation("Shop.7_b:c-d", "ü€\0\n", "x" * CLAIM_BYTES),
    ],
)
def test_a_revocation_survives_its_stream_fields(revocation: Revocation) -> None:
    fields = {name.encode(): text.encode() for name, text in revocation.to_fields().items()}

    assert Revocation.from_fields({**fields, b"other": b"\xff"}) == revocation


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"jti": b"t-1"},
        {b"merchant_id": b"4 2"},
        {b"merchant_id": b"\xff"},
        {b"merchant_id": b"42", b"jti": b"\xff"},
        {b"merchant_id": b"42", b"jti": b""},
        {b"merchant_id": b"42", b"sub": b""},
    ],
)
def test_malformed_fields_are_refused_and_never_read_as_a_wider_revocation(
    fields: dict[bytes, bytes],
) -> None:
    with pytest.raises(InvalidRevocation):
        Revocation.from_fields(fields)


# -- which grants are revoked


@pytest.mark.parametrize(
    ("iat", "is_revoked"), [(None, True), (1.0, True), (9_999.0, True), (9_999.001, False)]
)
def test_a_revoked_merchant_matches_grants_issued_until_then(
    memory: Memory, iat: float | None, *, is_revoked: bool
) -> None:
    assert memory.add(Revocation("42"), 9_999.0)

    assert memory.revokes(grant(iat=iat)) is is_revoked
    assert memory.revokes(grant(iat=iat, sub="u", jti="t")) is is_revoked
    assert not memory.revokes(grant("43", iat=iat))


@pytest.mark.parametrize(("iat", "is_revoked"), [(None, True), (9_999.0, True), (9_999.001, False)])
def test_a_revoked_subject_matches_grants_issued_to_it_until_then(
    memory: Memory, iat: float | None, *, is_revoked: bool
) -> None:
    memory.add(Revocation("42", None, "u"), 9_999.0)

    assert memory.revokes(grant(iat=iat, sub="u", jti="t")) is is_revoked
    assert not memory.revokes(grant(iat=iat, sub="v", jti="u"))
    assert not memory.revokes(grant(iat=iat))
    assert not memory.revokes(grant("43", iat=iat, sub="u"))


@pytest.mark.parametrize("iat", [None, 1.0, 9_999.0, 10_001.0])
def test_a_revoked_token_matches_whenever_it_was_issued(memory: Memory, iat: float | None) -> None:
    memory.add(Revocation("42", "t"), 9_999.0)

    assert memory.revokes(grant(iat=iat, sub="u", jti="t"))
    assert not memory.revokes(grant(iat=iat, sub="t", jti="u"))
    assert not memory.revokes(grant(iat=iat))
    assert not memory.revokes(grant("43", iat=iat, jti="t"))


def test_a_revocation_with_token_and_subject_needs_either_match(memory: Memory) -> None:
    memory.add(Revocation("42", "t", "u"), 9_999.0)

    assert memory.revokes(grant(jti="t", sub="v"))
    assert memory.revokes(grant(jti="s", sub="u"))
    assert not memory.revokes(grant(jti="s", sub="v"))
    assert not memory.revokes(grant())


def test_a_grant_is_not_revoked_without_a_revocation(memory: Memory) -> None:
    assert not memory.revokes(grant())
    assert not memory.revokes(grant(iat=1.0, sub="u", jti="t"))


# -- how long a revocation is remembered


def test_a_later_revocation_matches_grants_issued_in_between(memory: Memory) -> None:
    assert memory.add(Revocation("42"), 9_000.0)
    between = grant(iat=9_500.0)
    assert not memory.revokes(between)

    assert memory.add(Revocation("42"), 9_999.0)

    assert memory.revokes(between)


def test_a_repeated_revocation_is_not_new(memory: Memory) -> None:
    both = Revocation("42", "t", "u")
    assert memory.add(both, 9_000.0)

    assert not memory.add(both, 9_000.0)
    assert not memory.add(both, 8_000.0)
    assert not memory.add(Revocation("42", "t"), 9_000.0)
    assert memory.add(Revocation("42"), 9_000.0)
    assert memory.remembered_marks() == 3


def test_a_revocation_is_forgotten_when_its_grants_have_expired(memory: Memory) -> None:
    memory.add(Revocation("42", "t"), 9_999.0)

    memory.now = 9_999.0 + KEEP_S - 0.001
    memory.forget()
    assert memory.revokes(grant(jti="t"))

    memory.now = 9_999.0 + KEEP_S
    memory.forget()
    assert not memory.revokes(grant(jti="t"))
    assert (len(memory), memory.remembered_marks()) == (0, 0)


def test_a_revocation_that_was_repeated_is_remembered_from_the_later_time(memory: Memory) -> None:
    memory.add(Revocation("42"), 9_000.0)
    memory.add(Revocation("42"), 9_999.0)

    memory.now = 9_000.0 + KEEP_S
    memory.forget()

    assert memory.revokes(grant(iat=9_999.0))
    assert (len(memory), memory.remembered_marks()) == (1, 1)


def test_an_old_revocation_is_not_remembered(memory: Memory) -> None:
    assert not memory.add(Revocation("42"), memory.now - KEEP_S)

    assert len(memory) == 0


def test_a_time_ahead_of_our_clock_counts_as_now(memory: Memory) -> None:
    """A wrong clock of Redis refuses nobody for longer than the lifetime of a token."""
    memory.add(Revocation("42"), 1e9)

    assert memory.revokes(grant(iat=memory.now))
    assert not memory.revokes(grant(iat=memory.now + APART_S + 1))
    memory.now += KEEP_S + APART_S
    memory.forget()
    assert not memory.revokes(grant())


def test_a_clock_that_is_a_little_ahead_is_accepted(memory: Memory) -> None:
    memory.add(Revocation("42"), memory.now + APART_S)

    assert memory.revokes(grant(iat=memory.now + APART_S))


@pytest.mark.parametrize("seed", range(50))
def test_revocations_at_random_agree_with_a_list_of_all(seed: int) -> None:
    """The list has every revocation that was ever added, and the rules are written out again."""
    chance = random.Random(seed)
    memory = Memory()
    added: list[tuple[Revocation, float]] = []

    def some(*values: str) -> str | None:
        return chance.choice([None, *values])

    for _ in range(200):
        memory.now += chance.expovariate(1 / 100)
        revocation = Revocation(chance.choice("ab"), some("t", "s"), some("u", "v"))
        at = memory.now - chance.choice([0, 1, 500, KEEP_S + 1])
        memory.add(revocation, at)
        added.append((revocation, at))
        memory.forget()
        asked = grant(
            chance.choice("ab"),
            iat=chance.choice([None, memory.now - 300, memory.now - 50]),
            jti=some("t", "s"),
            sub=some("u", "v"),
        )
        known = [(each, at) for each, at in added if at > memory.now - KEEP_S]

        assert memory.revokes(asked) is any(is_revoked(asked, each, at) for each, at in known)
    assert len(memory) <= 10


def is_revoked(asked: Grant, revocation: Revocation, at: float) -> bool:
    if asked.merchant_id != revocation.merchant_id:
        return False
    if revocation.token_id is not None and asked.token_id == revocation.token_id:
        return True
    is_older = asked.issued_at is None or at >= asked.issued_at
    if revocation.subject is not None:
        return is_older and asked.subject == revocation.subject
    return is_older and revocation.token_id is None
