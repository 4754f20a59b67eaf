from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from sse_push.access.grant import Grant
from sse_push.errors import EndReason
from sse_push.hub.hub import Hub
from sse_push.hub.refresh import Refresh
from sse_push.notification import Change, Entry, EntryId, Notification
from sse_push.stream.tail import NEW_ENTRIES, Read, Tail, Watch, entries_between
from tests.harness.clock import PACE, ManualClock
from tests.simulation.simulation import ModelFollower, ModelRedis

MOST = 1000


def at(number: int) -> EntryId:
    return EntryId(number, 0)


def entry(number: int, topic: str | None = None) -> Entry:
    return Entry(at(number), Notification("42", topic))


def entries(*numbers: int) -> list[Entry]:
    return [entry(number) for number in numbers]


class Followed:
    """A tail, and what it has told."""

    def __init__(self) -> None:
        self.armed: list[tuple[str, EntryId | None]] = []
        self.changes: list[Change] = []
        self.tail = Tail(self.on_armed, self.changes.append)

    def on_armed(self, merchant_id: str, newest: EntryId | None) -> None:
        self.armed.append((merchant_id, newest))

    def reads(self, most: int = MOST) -> list[Read]:
        """Send what is wanted, and leave it unanswered."""
        return [read for _, read in self.tail.reads(most)]

    def one(self) -> tuple[Watch, Read]:
        ((watch, read),) = self.tail.reads(MOST)
        return watch, read

    def answer(self, *numbers: int) -> Read:
        """Send the one read that is wanted, and answer it."""
        watch, read = self.one()
        self.tail.answered(watch, entries(*numbers))
        return read

    def refuse(self) -> Read:
        watch, read = self.one()
        self.tail.refused(watch)
        return read

    def follow(self, *numbers: int, merchant_id: str = "42") -> None:
        """Follow a stream that has these entries."""
        self.tail.watch(merchant_id)
        self.answer(*numbers[-1:])


@pytest.fixture
def followed() -> Followed:
    return Followed()


# -- arming


def test_a_watched_stream_is_read_for_its_newest_entry(followed: Followed) -> None:
    followed.tail.watch("42")

    assert followed.reads() == [Read("42")]
    assert followed.reads() == []
    assert len(followed.tail) == 1


@pytest.mark.parametrize(("numbers", "newest"), [([7], at(7)), ([], None)])
def test_the_first_answer_says_where_the_stream_is(
    followed: Followed, numbers: list[int], newest: EntryId | None
) -> None:
    followed.tail.watch("42")
    followed.answer(*numbers)

    assert followed.armed == [("42", newest)]
    assert followed.changes == []
    assert followed.reads() == []


def test_a_stream_that_is_none_is_armed_as_one_without_entries(followed: Followed) -> None:
    followed.tail.watch("42")
    followed.refuse()

    assert followed.armed == [("42", None)]
    assert followed.changes == []

    followed.tail.announced("42")
    followed.answer(8)

    assert followed.armed == [("42", None)]
    assert followed.changes == [Change("42", at(8))]


def test_a_stream_is_armed_once(followed: Followed) -> None:
    followed.follow(7)

    followed.tail.announced("42")
    followed.answer(7, 8)

    assert followed.armed == [("42", at(7))]


def test_a_merchant_is_watched_once(followed: Followed) -> None:
    followed.tail.watch("42")

    with pytest.raises(AssertionError, match="a merchant is watched once"):
        followed.tail.watch("42")


def test_many_streams_are_read_in_one_go_and_in_the_order_of_their_coming(
    followed: Followed,
) -> None:
    for number in range(10):
        followed.tail.watch(f"m{number}")

    assert followed.reads(4) == [Read(f"m{number}") for number in range(4)]
    assert followed.reads(100) == [Read(f"m{number}") for number in range(4, 10)]


# -- what is new


def test_what_is_announced_is_read_from_what_we_hold_inclusive(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")

    assert followed.answer(7, 8, 9) == Read("42", at(7))
    assert followed.changes == [Change("42", at(9), (entry(8), entry(9)))]
    assert followed.reads() == []

    followed.tail.announced("42")

    assert followed.answer(9, 10) == Read("42", at(9))
    assert followed.changes[1:] == [Change("42", at(10), (entry(10),))]


def test_an_announcement_of_what_we_hold_was_spurious(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(7)

    assert followed.changes == []
    assert followed.reads() == []


def test_an_announcement_of_a_stream_that_nobody_watches_means_nothing(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("43")

    assert followed.reads() == []


def test_several_announcements_before_a_read_are_one(followed: Followed) -> None:
    followed.follow(7)
    for _ in range(3):
        followed.tail.announced("42")

    assert followed.reads() == [Read("42", at(7))]


def test_an_announcement_of_everything_reads_everything(followed: Followed) -> None:
    followed.follow(7, merchant_id="42")
    followed.follow(8, merchant_id="43")
    followed.tail.announced(None)

    assert followed.reads() == [Read("42", at(7)), Read("43", at(8))]


def test_the_first_entries_of_a_stream_are_told_without_their_topics(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")

    assert followed.answer(7) == Read("42")
    assert followed.changes == [Change("42", at(7))]


# -- the dirty mark


def test_a_stream_that_is_announced_while_it_is_read_is_read_again(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.one()

    followed.tail.announced("42")

    assert followed.reads() == []  # never two reads of one stream at once

    followed.tail.answered(watch, entries(7, 8))

    assert followed.answer(8, 9) == Read("42", at(8))
    assert [change.newest for change in followed.changes] == [at(8), at(9)]
    assert followed.reads() == []


def test_a_stream_that_is_announced_while_it_is_armed_is_read_again(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.one()
    followed.tail.announced("42")
    followed.tail.answered(watch, [])

    assert followed.answer(8) == Read("42")
    assert followed.armed == [("42", None)]
    assert followed.changes == [Change("42", at(8))]


def test_a_stream_that_is_announced_while_it_is_refused_is_read_again(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.one()
    followed.tail.announced("42")
    followed.tail.refused(watch)

    assert followed.answer(8) == Read("42")
    assert followed.changes == [Change("42", None, is_resync=True), Change("42", at(8))]


def test_what_came_and_went_while_we_read_is_told(followed: Followed) -> None:
    followed.tail.watch("42")
    watch, _ = followed.one()
    followed.tail.announced("42")
    followed.tail.answered(watch, [])
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


# -- continuity


@pytest.mark.parametrize(
    ("found", "newest"),
    [
        ([8, 9], [9]),  # trimmed past us
        ([9], [9]),
        ([], []),  # deleted
        ([], [3]),  # another history, with lower IDs
        ([8], []),  # deleted meanwhile
    ],
)
def test_what_does_not_begin_with_what_we_hold_is_a_resync(
    followed: Followed, found: list[int], newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*found)

    assert followed.changes == []

    assert followed.answer(*newest) == Read("42")
    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]
    assert followed.reads() == []


def test_what_does_not_begin_with_what_we_hold_is_a_resync_without_an_announcement_too(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.sweep(1)
    followed.answer()
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_after_a_resync_the_tail_goes_on_from_the_lower_id(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer()
    followed.answer(3)
    followed.tail.announced("42")

    assert followed.answer(3, 4) == Read("42", at(3))
    assert followed.changes[1:] == [Change("42", at(4), (entry(4),))]


def test_an_empty_stream_that_was_announced_is_not_believed(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_an_empty_stream_that_was_only_looked_at_is_believed(followed: Followed) -> None:
    followed.follow()
    followed.tail.sweep(1)
    followed.answer()

    assert followed.changes == []


def test_a_doubt_is_gone_with_the_read_that_it_caused(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()
    followed.tail.sweep(1)
    followed.answer()

    assert len(followed.changes) == 1


# -- bounded, and complete


def test_an_answer_that_is_not_full_is_told_entry_by_entry(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES))

    newest = 7 + NEW_ENTRIES - 1
    assert followed.changes == [Change("42", at(newest), tuple(entries(*range(8, newest + 1))))]
    assert followed.reads() == []


def test_of_an_answer_that_is_full_only_the_newest_id_is_taken(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))

    assert followed.changes == []

    assert followed.answer(500) == Read("42")
    assert followed.changes == [Change("42", at(500))]
    assert followed.reads() == []

    followed.tail.announced("42")

    assert followed.answer(500, 501) == Read("42", at(500))
    assert followed.changes[1:] == [Change("42", at(501), (entry(501),))]


def test_the_last_of_a_full_answer_may_be_the_newest(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.answer(7 + NEW_ENTRIES)

    assert followed.changes == [Change("42", at(7 + NEW_ENTRIES))]


@pytest.mark.parametrize("newest", [[], [3], [7 + NEW_ENTRIES - 1]])
def test_a_newest_entry_that_is_older_than_a_full_answer_is_a_resync(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.answer(*newest)

    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]


# -- one bad stream


def test_a_stream_that_becomes_something_else_is_a_resync(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.refuse()

    assert followed.changes == [Change("42", None, is_resync=True)]
    assert followed.reads() == []


def test_a_stream_that_is_found_to_be_something_else_is_a_resync(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.sweep(1)
    followed.refuse()

    assert followed.changes == [Change("42", None, is_resync=True)]


def test_a_stream_that_becomes_something_else_while_we_are_behind_is_one_resync(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer()
    followed.refuse()
    followed.tail.announced("42")
    followed.answer(8)

    assert followed.changes == [Change("42", None, is_resync=True), Change("42", at(8))]


def test_what_is_no_stream_and_changes_is_a_resync_each_time(followed: Followed) -> None:
    followed.follow()
    for _ in range(2):
        followed.tail.announced("42")
        followed.refuse()

    assert followed.changes == [Change("42", None, is_resync=True)] * 2


def test_what_is_no_stream_and_was_only_looked_at_is_as_it_was(followed: Followed) -> None:
    followed.follow()
    followed.tail.sweep(1)
    followed.refuse()

    assert followed.changes == []


def test_one_bad_stream_harms_no_other(followed: Followed) -> None:
    for merchant_id in ("1", "2", "3"):
        followed.follow(7, merchant_id=merchant_id)
    followed.tail.announced(None)
    first, second, third = (watch for watch, _ in followed.tail.reads(MOST))

    followed.tail.answered(first, entries(7, 8))
    followed.tail.refused(second)
    followed.tail.answered(third, entries(7, 8))

    assert [(each.merchant_id, each.newest, each.is_resync) for each in followed.changes] == [
        ("1", at(8), False),
        ("2", None, True),
        ("3", at(8), False),
    ]


# -- leaving


def test_a_stream_that_is_followed_no_more_is_not_read(followed: Followed) -> None:
    followed.tail.watch("42")
    followed.tail.watch("43")
    followed.tail.unwatch("42")

    assert followed.reads() == [Read("43")]
    assert len(followed.tail) == 1


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_answer_that_comes_too_late_means_nothing(
    followed: Followed, *, is_refused: bool
) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    watch, _ = followed.one()
    followed.tail.unwatch("42")
    followed.tail.watch("42")

    if is_refused:
        followed.tail.refused(watch)
    else:
        followed.tail.answered(watch, entries(7, 8))

    assert followed.armed == [("42", at(7))]
    assert followed.changes == []
    assert followed.reads() == [Read("42")]  # the new watch's own


def test_an_announcement_that_comes_too_late_means_nothing(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.unwatch("42")
    followed.tail.announced("42")

    assert followed.reads() == []


# -- a new connection


def test_on_a_new_connection_everything_is_read_again(followed: Followed) -> None:
    followed.follow(7, merchant_id="42")
    followed.follow(merchant_id="43")
    followed.tail.announced("42")
    followed.reads()  # on its way when the connection was lost
    followed.tail.watch("44")  # not sent yet

    followed.tail.connected(has_history=True)

    assert followed.reads() == [Read("42", at(7)), Read("43"), Read("44")]
    assert followed.reads() == []


def test_a_server_that_is_the_one_we_knew_may_have_nothing_new(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=True)
    followed.answer(7)

    assert followed.changes == []


def test_what_came_while_we_were_blind_is_told(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=True)

    assert followed.answer(7, 8) == Read("42", at(7))
    assert followed.changes == [Change("42", at(8), (entry(8),))]


def test_what_came_and_went_while_we_were_blind_is_a_resync(followed: Followed) -> None:
    followed.follow()
    followed.tail.connected(has_history=True)
    followed.answer()

    assert followed.changes == [Change("42", None, is_resync=True)]


@pytest.mark.parametrize("newest", [[], [3], [7], [9]])
def test_another_server_is_a_resync_even_if_its_newest_entry_is_ours(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)

    assert followed.answer(*newest) == Read("42")
    adopted = at(newest[0]) if newest else None
    assert followed.changes == [Change("42", adopted, is_resync=True)]


def test_a_stream_that_was_not_armed_yet_is_armed_by_another_server(followed: Followed) -> None:
    followed.tail.watch("42")
    followed.reads()
    followed.tail.connected(has_history=False)

    assert followed.answer(7) == Read("42")
    assert followed.armed == [("42", at(7))]
    assert followed.changes == []

    followed.tail.announced("42")

    assert followed.answer(7, 8) == Read("42", at(7))


def test_a_stream_that_we_were_behind_of_is_still_behind_after_a_cut(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.announced("42")
    followed.answer(*range(7, 7 + NEW_ENTRIES + 1))
    followed.reads()
    followed.tail.connected(has_history=True)

    assert followed.answer(500) == Read("42")
    assert followed.changes == [Change("42", at(500))]


# -- the sweep


def test_a_sweep_reads_every_stream_once_in_a_round(followed: Followed) -> None:
    for number in range(7):
        followed.follow(number, merchant_id=f"m{number}")

    rounds: list[str] = []
    for _ in range(4):
        followed.tail.sweep(0.25)
        for watch, read in followed.tail.reads(MOST):
            rounds.append(read.merchant_id)
            followed.tail.answered(watch, entries(int(read.merchant_id[1:])))

    assert rounds[:7] == [f"m{number}" for number in range(7)]
    assert len(rounds) == 8
    assert followed.changes == []


def test_a_sweep_finds_what_was_never_announced(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.sweep(1 / 30)
    followed.answer(7, 8)

    assert followed.changes == [Change("42", at(8), (entry(8),))]


def test_a_sweep_passes_over_who_has_left_and_comes_to_who_is_new(followed: Followed) -> None:
    for merchant_id in ("1", "2"):
        followed.follow(7, merchant_id=merchant_id)
    followed.tail.sweep(0.5)
    assert followed.answer(7).merchant_id == "1"
    followed.tail.unwatch("2")
    followed.follow(7, merchant_id="3")

    followed.tail.sweep(0.5)
    left = followed.reads()
    followed.tail.sweep(1)

    assert left == []
    assert [read.merchant_id for read in followed.reads()] == ["1", "3"]


def test_a_sweep_of_nothing_reads_nothing(followed: Followed) -> None:
    followed.tail.sweep(1)

    assert followed.reads() == []


# -- what came between two IDs


@pytest.mark.parametrize(
    ("found", "between"),
    [
        ([7, 8, 9], [8, 9]),
        ([7, 9], [9]),
        ([8, 9], None),  # trimmed past the start
        ([7, 8], None),  # without the end
        ([9], None),
        ([7], None),
        ([], None),
    ],
)
def test_what_came_between_two_ids_is_known_only_whole(
    found: list[int], between: list[int] | None
) -> None:
    expected = None if between is None else tuple(entries(*between))

    assert entries_between(at(7), at(9), entries(*found)) == expected


def test_what_came_between_two_ids_is_not_known_if_the_answer_is_full() -> None:
    found = entries(*range(NEW_ENTRIES + 1))

    assert entries_between(at(0), at(NEW_ENTRIES), found) is None
    assert entries_between(at(0), at(NEW_ENTRIES - 1), found[:-1]) == tuple(found[1:-1])


# -- both sides of the race between reading, adding and comparing


class Client:
    """What one browser has been told, which came while its merchant was being read."""

    def __init__(self) -> None:
        self.told: list[EntryId | None] = []

    def offer(self, frame: Sequence[Refresh]) -> bool:
        self.told += [refresh.id for refresh in frame]
        return True

    def end(self, reason: EndReason) -> None:
        raise AssertionError(f"not ended here, got {reason}")


class Race:
    """A model of Redis, the tail, the hub and one joining browser, taken step by step."""

    def __init__(self, *, is_overtaken: bool) -> None:
        self.is_overtaken = is_overtaken
        self.redis = ModelRedis(random.Random(1))
        self.redis.is_ordered = True
        self.tail = Tail(self.on_armed, self.on_change)
        self.follower = ModelFollower(self.redis, self.tail)
        self.clock = ManualClock()
        self.hub: Hub[Sequence[Refresh]] = Hub(
            self.follower, lambda _, refreshes: refreshes, (), PACE, self.clock
        )
        self.client = Client()
        self.compared: EntryId | None = None

    def on_armed(self, merchant_id: str, newest: EntryId | None) -> None:
        self.hub.armed(merchant_id, newest)

    def on_change(self, change: Change) -> None:
        self.hub.publish(change)

    def add(self) -> EntryId | None:
        return self.redis.xadd(Notification("42", "seats"), max_entries=100)

    def subscribe(self) -> None:
        self.subscription = self.hub.subscribe(Grant("42"), self.client)

    def send(self) -> None:
        self.follower.send(MOST)

    def serve(self) -> None:
        while self.follower.sent:
            self.follower.serve_one()

    def overtake(self) -> None:
        """Let an announcement come before the reply, as it may on two connections."""
        if self.is_overtaken:
            self.redis.out.rotate(1)

    def receive(self) -> None:
        while self.redis.out:
            self.follower.receive_one()

    def compare(self) -> None:
        self.compared = self.hub.position(self.subscription)

    def admit(self) -> None:
        self.hub.admit(self.subscription, ())
        self.hub.drained(self.subscription)

    def rest(self) -> None:
        for _ in range(3):
            self.send()
            self.serve()
            self.receive()
        self.clock.advance(1)

    STEPS = (subscribe, send, serve, overtake, receive, compare, admit, rest)


@pytest.mark.parametrize("is_overtaken", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("moment", range(len(Race.STEPS)))
def test_an_entry_is_either_compared_with_or_told_whenever_it_is_added(
    moment: int, *, is_first: bool, is_overtaken: bool
) -> None:
    race = Race(is_overtaken=is_overtaken)
    race.follower.connect()
    if not is_first:
        race.add()

    for step in Race.STEPS[:moment]:
        step(race)
    added = race.add()
    for step in Race.STEPS[moment:]:
        step(race)

    known = [race.compared, *race.client.told]
    assert known.count(added) == 1
    assert known[-1] == added


# -- what is counted


def lost(followed: Followed) -> list[str]:
    """Return why streams were taken up anew; as often as it was told."""
    resyncs = followed.tail.tally.resyncs
    reasons: list[str] = [reason for reason, count in resyncs.items() for _ in range(count)]
    assert len(reasons) == sum(change.is_resync for change in followed.changes)
    return reasons


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([[8, 9], [9]], ["history_lost"]),
        ([[], [3]], ["history_lost"]),
        ([[], []], ["stream_gone"]),
        ([[*range(7, 8 + NEW_ENTRIES)], [3]], ["history_lost"]),
        ([[*range(7, 8 + NEW_ENTRIES)], []], ["stream_gone"]),
        ([[*range(7, 8 + NEW_ENTRIES)], [500]], []),
        ([None], ["not_a_stream"]),
        ([[], None], ["not_a_stream"]),
        ([[7, 8]], []),
    ],
)
def test_a_resync_is_counted_by_what_was_found(
    followed: Followed, answers: list[list[int] | None], reason: list[str]
) -> None:
    followed.follow(7)
    followed.tail.announced("42")

    for numbers in answers:
        if numbers is None:
            followed.refuse()
        else:
            followed.answer(*numbers)

    assert lost(followed) == reason


@pytest.mark.parametrize("newest", [[], [3], [7], [9]])
def test_a_resync_after_the_server_changed_is_counted_as_that(
    followed: Followed, newest: list[int]
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(*newest)

    assert lost(followed) == ["server_changed"]


def test_what_is_lost_after_the_server_changed_is_counted_by_itself(followed: Followed) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(9)
    followed.tail.announced("42")
    followed.answer()
    followed.answer()

    assert sorted(lost(followed)) == ["server_changed", "stream_gone"]


def test_history_that_is_lost_after_the_server_changed_is_counted_by_itself(
    followed: Followed,
) -> None:
    followed.follow(7)
    followed.tail.connected(has_history=False)
    followed.answer(9)
    followed.tail.announced("42")
    followed.answer(*range(9, 10 + NEW_ENTRIES))
    followed.answer(3)

    assert sorted(lost(followed)) == ["history_lost", "server_changed"]


def test_what_came_and_went_is_counted_as_gone(followed: Followed) -> None:
    followed.follow()
    followed.tail.announced("42")
    followed.answer()

    assert lost(followed) == ["stream_gone"]
