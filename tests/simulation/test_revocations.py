"""No revocation is overlooked, in any order of events; and each rule is there because one would be.

The code under test is the real ``RevocationTail``, and the real ``Revocations`` that it fills; the
server, and the connection to it, are a model. Little room is made: the server keeps few revocations
and drops older ones, and few are remembered.
"""

from __future__ import annotations

import math
import random

import pytest

from sse_push.access import revocation
from sse_push.access.grant import Grant
from sse_push.access.revocation import Revocation, Revocations
from sse_push.notification import EntryId
from sse_push.stream import revocations, schedule
from sse_push.stream.reads import PAGE_ENTRIES, Held, ReadFrom, RevocationEntry
from sse_push.stream.revocations import Knowledge, RevocationTail
from sse_push.stream.schedule import PUT_OFF, TRANSITIONS, Schedule
from tests.simulation.transitions import Notebook, permit_all

RUNS = 200
STEPS = 400

KEPT = 100
MARKS = 80
MARKS_OF_A_MERCHANT = 30
"""The room in the model: of the stream, of the memory, and of one merchant in the memory."""

OVERLOOKED = "a revocation was overlooked"
FULL = "the memory has no bound"
UNKNOWN = "a tail with nothing on its way does not know all revocations"

Entries = list[tuple[EntryId, int]]
Reply = Entries | None
"""The entries read; None: an error."""


def revocation_of(serial: int) -> Revocation:
    """Return a revocation of one token: half of them are of one merchant."""
    return Revocation.naming("many" if serial % 2 else str(serial), str(serial))


def grant_of(serial: int, issued_at: float) -> Grant:
    revoked = revocation_of(serial)
    return Grant(revoked.merchant_id, 1e12, None, revoked.token_id, issued_at)


def entry_of(entry_id: EntryId, serial: int) -> RevocationEntry:
    return RevocationEntry(entry_id, revocation_of(serial), fingerprint=serial)


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "REVOCATIONS_MAX", KEPT)
    monkeypatch.setattr(revocation, "MARKS_MAX", MARKS)
    monkeypatch.setattr(revocation, "MERCHANT_MARKS_MAX", MARKS_OF_A_MERCHANT)


class RevocationSimulation:
    """A server with the stream, which announces one change after each read, and a tail of it."""

    def __init__(
        self,
        seed: int,
        tail: type[RevocationTail] = RevocationTail,
        memory: type[Revocations] = Revocations,
    ) -> None:
        self.chance = random.Random(seed)
        self.revoked: set[Revocation] = set()
        """What the tail has passed on."""
        self.memory = memory(1e9, 0, lambda: self.latest_ms / 1000)
        self.tail = tail(self.on_revoked, self.memory.revoke_all)
        self.dropped: Entries = []
        """What the server has dropped since the stream had become too long."""
        self.latest_ms = 0
        self.stream: Entries = []
        self.lost: set[int] = set()
        self.serial = 0
        self.time_ms = 1_000_000
        self.epoch = 0
        self.is_ordered = self.chance.random() < 0.7
        """Replies and announcements arrive in one order (RESP3), or each kind in its own."""
        self.is_other_type = False
        self.is_armed = False
        self.sent: list[ReadFrom] = []
        """Reads on their way."""
        self.out: list[Reply | str] = []
        """Replies on their way back, and announcements, in order."""
        self.tail.connected()

    def on_revoked(self, revoked: Revocation, at: float) -> None:
        self.revoked.add(revoked)
        self.memory.add(revoked, at)

    # -- what can happen

    def change(self) -> None:
        if self.is_armed:
            self.is_armed = False
            self.out.append("announcement")

    def add(self) -> None:
        if not self.is_other_type:
            for _ in range(self.chance.choice([1, 1, 2, PAGE_ENTRIES + 3, KEPT + 10])):
                self.serial += 1
                # In each epoch its own last digits: only ``use_again`` gives an ID again.
                self.time_ms = (self.time_ms // 64 + 1) * 64 + self.epoch % 64
                self.latest_ms = max(self.latest_ms, self.time_ms)
                self.stream.append((EntryId(self.time_ms, 0), self.serial))
            too_many = max(0, len(self.stream) - KEPT - self.chance.randrange(5))
            self.dropped += self.stream[:too_many]
            del self.stream[:too_many]
            self.change()

    def lose(self) -> None:
        """Forget the newest entries: DEL, or a failover to a server that has fewer."""
        keep = self.chance.randint(0, len(self.stream))
        self.forget(self.stream[keep:])
        self.epoch += 1
        if self.chance.random() < 0.5:  # and its clock is behind
            newest = self.stream[-1][0].ms if self.stream else 0
            self.time_ms = max(newest, self.time_ms - 64 * self.chance.choice([2, 300]))
        self.change()

    def use_again(self) -> None:
        """Delete the stream, and give its newest ID again, as within one millisecond."""
        if not self.stream:
            return
        entry_id = self.stream[-1][0]
        self.forget(self.stream)
        self.serial += 1
        self.stream.append((entry_id, self.serial))
        self.change()

    def trim(self) -> None:
        self.forget(self.stream[: self.chance.randint(0, len(self.stream))])
        self.change()

    def forget(self, entries: Entries) -> None:
        """Lose entries without a trace: a stream that is short again hides what was dropped."""
        self.lost.update(serial for _, serial in [*entries, *self.dropped])
        self.dropped.clear()
        self.stream = [each for each in self.stream if each not in entries]

    def set_other_type(self) -> None:
        self.forget(self.stream)
        self.epoch += 1
        self.is_other_type = True
        self.change()

    def delete(self) -> None:
        if self.is_other_type:
            self.is_other_type = False
            self.change()

    def cut(self) -> None:
        """Lose the connection, with all that is on its way, and make another."""
        self.sent.clear()
        self.out.clear()
        self.is_armed = False
        self.tail.connected()

    def send(self) -> None:
        read = self.tail.next_read()
        if read is not None:
            self.sent.append(read)

    def serve(self) -> None:
        if self.sent:
            start = self.sent.pop(0).start
            found = [each for each in self.stream if start is None or each[0] >= start]
            found = found[:PAGE_ENTRIES]
            self.out.append(None if self.is_other_type else found)
            self.is_armed = True

    def receive(self) -> None:
        if not self.out:
            return
        number = 0
        if not self.is_ordered:
            is_announcement = isinstance(self.chance.choice(self.out), str)
            number = [isinstance(each, str) for each in self.out].index(is_announcement)
        got = self.out.pop(number)
        if isinstance(got, str):
            self.tail.mark()
        elif got is None:
            self.tail.failed()
        else:
            self.tail.answered([entry_of(at, serial) for at, serial in got])

    # -- a run

    def run(self) -> None:
        work = [self.send, self.serve, self.receive]
        events = [self.add, self.lose, self.use_again, self.trim, self.set_other_type]
        events += [self.delete, self.cut]
        for _ in range(STEPS):
            self.chance.choice([*work * 4, *events])()
            self.judge()
        self.delete()
        for step in work * 100:
            step()
        assert self.is_at_rest, UNKNOWN
        self.judge()
        given = {revocation_of(serial) for serial in range(1, self.serial + 1)}
        assert self.revoked <= given, "a revocation was made up"

    @property
    def is_at_rest(self) -> bool:
        is_complete = self.tail.knowledge is Knowledge.COMPLETE
        return is_complete and self.tail.schedule is Schedule.IDLE and not self.out

    def judge(self) -> None:
        assert len(self.memory) <= MARKS + 1, FULL
        if self.is_at_rest:
            for entry_id, serial in self.stream + self.dropped:
                assert self.memory.revokes(grant_of(serial, entry_id.ms / 1000)), OVERLOOKED


EXEMPT = {
    *((state, PUT_OFF) for state, row in TRANSITIONS.items() if PUT_OFF in row),
    *((PUT_OFF, state) for state in TRANSITIONS[PUT_OFF]),
}
"""No read of revocations is put off: any error reply leaves them ``UNREADABLE``, until the sweep
or an announcement has them read again."""


def test_no_revocation_is_overlooked_and_every_transition_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebook = Notebook(monkeypatch, revocations, schedule)

    for seed in range(RUNS):
        RevocationSimulation(seed).run()

    assert notebook.not_made == EXEMPT


def test_little_room_is_used_up(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise the runs would show nothing."""
    is_dropping = [False, False]
    for seed in range(20):
        simulation = RevocationSimulation(seed)
        simulation.run()
        is_dropping[simulation.memory._merged_at > 0] = True

    assert all(is_dropping)
    assert "too many revocations of a merchant" in caplog.text
    assert "too many revocations, all" in caplog.text


def first_failure(simulation: RevocationSimulation) -> str | None:
    try:
        simulation.run()
    except AssertionError as exc:
        return str(exc).partition("\n")[0]
    return None


# -- the rules, each taken out


class TrustsAnyHistory(RevocationTail):
    """Continuity: an answer is taken for what followed, whatever it begins with."""

    def answered(self, entries: list[RevocationEntry]) -> None:
        if self._held is not None and (not entries or Held.of(entries[0]) != self._held):
            entries = [RevocationEntry(self._held.id, None, self._held.fingerprint), *entries]
        super().answered(entries)


class ComparesIdsOnly(RevocationTail):
    """Continuity: an entry with the ID held is taken for the entry held, whatever is in it."""

    def answered(self, entries: list[RevocationEntry]) -> None:
        if self._held is not None and entries and entries[0].id == self._held.id:
            self._held = Held.of(entries[0])
        super().answered(entries)


class ClearsTheMarkAfterTheRead(RevocationTail):
    """The dirty mark: an announcement while a read is under way is lost."""

    def answered(self, entries: list[RevocationEntry]) -> None:
        if self.schedule is Schedule.READING_DIRTY:
            self.schedule = Schedule.READING
        super().answered(entries)


class ReadsOnePage(RevocationTail):
    """Bounded and complete: the entries after a full page are neither read nor announced."""

    def finish_read(self, *, is_whole: bool) -> bool:
        if not is_whole and self._held is not None:
            self.knowledge = Knowledge.COMPLETE
            is_whole = True
        return super().finish_read(is_whole=is_whole)


class TrustsItsLastConnection(RevocationTail):
    """A new connection: nothing is armed there, and nothing was announced in between."""

    def connected(self) -> None:
        if self.knowledge is not Knowledge.COMPLETE or self.schedule is not Schedule.IDLE:
            super().connected()


class TrustsALongStream(RevocationTail):
    """A stream that is as long as it may be: what was dropped from it unread is unknown."""

    def _reach_the_end(self) -> None:
        self._read = 0
        super()._reach_the_end()


class CountsOnePage(RevocationTail):
    """A stream is counted from its beginning to its end, whatever the number of pages."""

    def answered(self, entries: list[RevocationEntry]) -> None:
        self._read = 0
        super().answered(entries)


class ForgetsClaims(Revocations):
    """Too many claims of a merchant: one mark stands for them."""

    def _merge(self, merchant_id: str, marks: revocation._Marks) -> None:
        super()._merge(merchant_id, marks)
        marks.merged_at = -math.inf


class ForgetsMerchants(Revocations):
    """Too many marks: one mark stands for all."""

    def _merge_all(self) -> None:
        super()._merge_all()
        self._merged_at = -math.inf


class HasNoBound(Revocations):
    """Too many marks: they are replaced."""

    def _merge_all(self) -> None:
        pass


@pytest.mark.parametrize(
    "mutant",
    [
        TrustsAnyHistory,
        ComparesIdsOnly,
        ClearsTheMarkAfterTheRead,
        ReadsOnePage,
        TrustsItsLastConnection,
        TrustsALongStream,
        CountsOnePage,
    ],
)
def test_a_rule_that_is_taken_out_overlooks_a_revocation(
    monkeypatch: pytest.MonkeyPatch, mutant: type[RevocationTail]
) -> None:
    permit_all(monkeypatch, revocations, schedule)
    failures = (first_failure(RevocationSimulation(seed, mutant)) for seed in range(RUNS))

    assert next(filter(None, failures), None) in {OVERLOOKED, UNKNOWN}


@pytest.mark.parametrize(
    ("mutant", "failure"),
    [(ForgetsClaims, OVERLOOKED), (ForgetsMerchants, OVERLOOKED), (HasNoBound, FULL)],
)
def test_a_memory_that_forgets_overlooks_a_revocation_and_one_that_does_not_grows(
    mutant: type[Revocations], failure: str
) -> None:
    simulations = (RevocationSimulation(seed, memory=mutant) for seed in range(RUNS))

    assert next(filter(None, map(first_failure, simulations)), None) == failure
