from __future__ import annotations

import random

import pytest

from sse_push.access import revocation as revocation_module
from sse_push.access.grant import Grant, hash_claim
from sse_push.access.revocation import CLAIM_BYTES, Revocation, Revocations
from sse_push.errors import InvalidRevocation

KEEP_S = 3600.0
APART_S = 5.0


class Memory(Revocations):
    """Revocations with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 10_000.0
        super().__init__(KEEP_S, APART_S, lambda: self.now)


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
    named = Revocation.naming(merchant_id, jti, sub)
    return Grant(merchant_id, 20_000.0, named.subject, named.token_id, iat)


# -- the JSON and the fields of a revocation


@pytest.mark.parametrize(
    ("value", "revocation"),
    [
        ({"merchant_id": "42"}, Revocation("42")),
        ({"merchant_id": 42}, Revocation("42")),
        ({"merchant_id": "42", "jti": None, "sub": None}, Revocation("42")),
        ({"merchant_id": "42", "jti": "t-1"}, Revocation.naming("42", "t-1")),
        ({"merchant_id": "42", "sub": "u-1"}, Revocation.naming("42", None, "u-1")),
        ({"merchant_id": "42", "jti": "t", "sub": "ü\n"}, Revocation.naming("42", "t", "ü\n")),
        (
            {"merchant_id": "42", "jti": "x" * CLAIM_BYTES},
            Revocation.naming("42", "x" * CLAIM_BYTES),
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
        ("42", "expected a JSON object with merchant_id, got '42' (string)"),
        (None, "expected a JSON object with merchant_id, got null"),
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
        ({"merchant_id": "42", "sub": ["u"]}, f"sub: {OF_A_CLAIM}a JSON array"),
        ({"merchant_id": "42", "sub": False}, f"sub: {OF_A_CLAIM}false"),
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
        Revocation.naming("42", "t-1"),
        Revocation.naming("42", None, "u-1"),
        Revocation.naming("Shop.7_b:c-d", "ü€\0\n", "x" * CLAIM_BYTES),
    ],
)
def test_a_revocation_survives_its_stream_fields(revocation: Revocation) -> None:
    fields = {name.encode(): text.encode() for name, text in revocation.to_fields().items()}

    assert Revocation.from_fields({**fields, b"other": b"\xff"}) == revocation


def test_a_claim_of_any_length_is_kept_as_16_bytes() -> None:
    revocation = Revocation.naming("42", "x" * CLAIM_BYTES, "x")

    assert revocation.token_id is not None
    assert revocation.subject is not None
    assert [len(claim) for claim in (revocation.token_id, revocation.subject)] == [16, 16]
    assert sum(map(len, revocation.to_fields().values())) == 2 + 2 * 32


@pytest.mark.parametrize("claims", [("t", "u"), ("t", None), (None, "ü"), (None, None)])
def test_an_entry_of_version_0_1_means_the_same(claims: tuple[str | None, str | None]) -> None:
    named = dict(zip((b"jti", b"sub"), claims, strict=True))
    texts = {name: text.encode() for name, text in named.items() if text is not None}

    read = Revocation.from_fields({b"merchant_id": b"42", **texts})

    assert read == Revocation.naming("42", *claims)


def test_a_hash_wins_over_a_text() -> None:
    fields = {b"merchant_id": b"42", b"jti_hash": hash_claim("t").hex().encode(), b"jti": b"s"}

    assert Revocation.from_fields(fields) == Revocation.naming("42", "t")


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
        {b"merchant_id": b"42", b"jti_hash": b""},
        {b"merchant_id": b"42", b"jti_hash": b"0" * 31},
        {b"merchant_id": b"42", b"jti_hash": b"0" * 33},
        {b"merchant_id": b"42", b"sub_hash": b"g" * 32},
        {b"merchant_id": b"42", b"sub_hash": b"\xff" * 32},
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
    memory.add(Revocation.naming("42", None, "u"), 9_999.0)

    assert memory.revokes(grant(iat=iat, sub="u", jti="t")) is is_revoked
    assert not memory.revokes(grant(iat=iat, sub="v", jti="u"))
    assert not memory.revokes(grant(iat=iat))
    assert not memory.revokes(grant("43", iat=iat, sub="u"))


@pytest.mark.parametrize("iat", [None, 1.0, 9_999.0, 10_001.0])
def test_a_revoked_token_matches_whenever_it_was_issued(memory: Memory, iat: float | None) -> None:
    memory.add(Revocation.naming("42", "t"), 9_999.0)

    assert memory.revokes(grant(iat=iat, sub="u", jti="t"))
    assert not memory.revokes(grant(iat=iat, sub="t", jti="u"))
    assert not memory.revokes(grant(iat=iat))
    assert not memory.revokes(grant("43", iat=iat, jti="t"))


def test_a_revocation_with_token_and_subject_needs_either_match(memory: Memory) -> None:
    memory.add(Revocation.naming("42", "t", "u"), 9_999.0)

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
    both = Revocation.naming("42", "t", "u")
    assert memory.add(both, 9_000.0)

    assert not memory.add(both, 9_000.0)
    assert not memory.add(both, 8_000.0)
    assert not memory.add(Revocation.naming("42", "t"), 9_000.0)
    assert memory.add(Revocation("42"), 9_000.0)
    assert len(memory) == 3


def test_a_revocation_is_forgotten_when_its_grants_have_expired(memory: Memory) -> None:
    memory.add(Revocation.naming("42", "t"), 9_999.0)

    memory.now = 9_999.0 + KEEP_S - 0.001
    memory.forget()
    assert memory.revokes(grant(jti="t"))

    memory.now = 9_999.0 + KEEP_S
    memory.forget()
    assert not memory.revokes(grant(jti="t"))
    assert len(memory) == 0
    assert memory._merchants == {}


def test_a_revocation_that_was_repeated_is_remembered_from_the_later_time(memory: Memory) -> None:
    memory.add(Revocation("42"), 9_000.0)
    memory.add(Revocation("42"), 9_999.0)

    memory.now = 9_000.0 + KEEP_S
    memory.forget()

    assert memory.revokes(grant(iat=9_999.0))
    assert len(memory) == 1


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


# -- how many revocations are remembered


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, memory: Memory) -> Memory:
    """A memory with room for three claims of a merchant, and seven marks in all."""
    monkeypatch.setattr(revocation_module, "MERCHANT_MARKS_MAX", 3)
    monkeypatch.setattr(revocation_module, "MARKS_MAX", 7)
    return memory


def test_too_many_claims_of_a_merchant_become_one_mark(
    few: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        few.add(Revocation.naming("42", f"t{number}"), 9_000.0 + number)
    few.add(Revocation("43"), 9_000.0)

    assert len(few) == 2
    assert all(few.revokes(grant(jti=f"t{number}", iat=9_000.0)) for number in range(4))
    assert few.revokes(grant(jti="another", iat=9_003.0 + APART_S))
    assert not few.revokes(grant(jti="another", iat=9_003.1 + APART_S))
    assert not few.revokes(grant("44", iat=1.0))
    assert [record.getMessage() for record in caplog.records] == [
        "too many revocations of a merchant, its older tokens are refused merchant_id=42"
    ]


def test_claims_after_the_mark_of_all_are_remembered_one_by_one(few: Memory) -> None:
    for number in range(4):
        few.add(Revocation.naming("42", None, f"u{number}"), 9_000.0)
    assert few.add(Revocation.naming("42", "t"), 9_500.0) == 9_500.0

    assert len(few) == 2
    assert few.revokes(grant(jti="t", iat=9_600.0))
    assert not few.revokes(grant(jti="s", iat=9_600.0))


def test_a_merged_claim_that_is_read_again_takes_no_room_and_is_applied_again(few: Memory) -> None:
    """It may be another one, by a server whose clock is behind."""
    for number in range(4):
        few.add(Revocation.naming("42", f"t{number}", f"u{number}"), 9_000.0)
    before = len(few)

    assert few.add(Revocation.naming("42", "t1"), 9_000.0) == 9_000.0
    assert few.add(Revocation.naming("42", None, "new"), 8_000.0) == 8_000.0
    assert len(few) == before
    assert few.add(Revocation("42"), 8_000.0) == 8_000.0
    assert few.add(Revocation("42"), 8_000.0) is None


def test_too_many_marks_become_one_for_all_merchants(
    few: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        few.add(Revocation.naming(str(number), "t"), 9_000.0 + number)

    assert len(few) == 1
    assert few.revokes(grant("0", jti="t", iat=9_000.0))
    assert few.revokes(grant("another", iat=9_007.0 + APART_S))
    assert few.revokes(grant("another"))
    assert not few.revokes(grant("another", iat=9_007.1 + APART_S))
    assert few.add(Revocation("42"), 9_007.0) == 9_007.0, "connections may be open"
    assert len(few) == 1
    assert "too many revocations, all older tokens are refused" in caplog.text


def test_a_mark_of_all_is_forgotten_as_others_are(few: Memory) -> None:
    for number in range(8):
        few.add(Revocation.naming(str(number), "t"), 9_000.0)
    for number in range(4):
        few.add(Revocation.naming("42", f"t{number}"), 9_001.0)
    few.now = 9_000.0 + KEEP_S
    few.forget()
    assert not few.revokes(grant("43"))
    assert few.revokes(grant("42"))

    few.now = 9_001.0 + KEEP_S
    few.forget()

    assert not few.revokes(grant("42"))
    assert not few


def test_all_grants_until_some_time_may_be_revoked_but_not_for_the_future(memory: Memory) -> None:
    memory.revoke_all(9_000.0)
    assert memory.revokes(grant(iat=9_000.0))
    assert not memory.revokes(grant(iat=9_000.1 + APART_S))

    memory.revoke_all(1e9)

    assert memory.revokes(grant(iat=memory.now))
    assert not memory.revokes(grant(iat=memory.now + 2 * APART_S + 1))


def test_a_mark_that_is_revoked_again_and_again_takes_the_room_of_one(memory: Memory) -> None:
    for number in range(1000):
        memory.add(Revocation.naming("42", "t", "u"), 9_000.0 + number / 1000)

    marks = memory._merchants["42"]
    assert (len(memory), len(marks.tokens), len(marks.subjects)) == (2, 1, 1)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("is_full", [False, True])
def test_revocations_at_random_agree_with_a_list_of_all(
    monkeypatch: pytest.MonkeyPatch, seed: int, *, is_full: bool
) -> None:
    """The list has every revocation that was ever added, and the rules are written out again.

    Where there is too little room, more is refused than the list says, and never less: but for a
    token that was issued after its ID was revoked, which no issuer does.
    """
    if is_full:
        monkeypatch.setattr(revocation_module, "MERCHANT_MARKS_MAX", 2)
        monkeypatch.setattr(revocation_module, "MARKS_MAX", 5)
    chance = random.Random(seed)
    memory = Memory()
    added: list[tuple[Revocation, float]] = []

    def some(*values: str) -> str | None:
        return chance.choice([None, *values])

    for _ in range(200):
        memory.now += chance.expovariate(1 / 100)
        revocation = Revocation.naming(chance.choice("ab"), some("t", "s"), some("u", "v"))
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

        assert revocation.revokes(asked, at) is is_revoked(asked, revocation, at)
        covering = [at for each, at in known if is_revoked(asked, each, at)]
        if not is_full:
            assert memory.revokes(asked) is (covering != [])
        elif any(not is_issued_later(asked, at) for at in covering):
            assert memory.revokes(asked)
        assert len(memory) <= (6 if is_full else 10)


def is_issued_later(asked: Grant, at: float) -> bool:
    return asked.issued_at is not None and asked.issued_at > at + APART_S


def is_revoked(asked: Grant, revocation: Revocation, at: float) -> bool:
    if asked.merchant_id != revocation.merchant_id:
        return False
    if revocation.token_id is not None and asked.token_id == revocation.token_id:
        return True
    is_older = asked.issued_at is None or at >= asked.issued_at
    if revocation.subject is not None:
        return is_older and asked.subject == revocation.subject
    return is_older and revocation.token_id is None
