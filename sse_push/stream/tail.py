"""Follow many streams: which read comes next, and what an answer means; a state machine.

Knows entry IDs and the rules under which no change is overlooked. Does no I/O and does not know
Redis: ``follow`` sends the reads, and brings the answers and the announcements.

Theory of operation
-------------------

Redis *announces*, once, a change of a key that a tracked connection has read. The next change is
announced only after the key has been read again: a read *arms* the key. A read answers and arms in
one step, so an entry is either in the answer or announced after it. A change that is overlooked
here is overlooked until the next sweep, while a browser shows old data. Each rule below closes one
gap. ``tests/simulation`` takes each rule out, but the sweep, and finds a browser that shows old
data.

**Continuity.** A stream has every entry since a certain entry only if that entry is still there. So
each read starts *at* the ID that we hold, not after it, and the first entry of the answer must be
the entry that we hold: that ID, *with the same fields*, since a stream that was deleted may give an
ID again. Then the answer is all that has happened since. Anything else means that history was
trimmed past us, deleted, or replaced by another one (DEL, FLUSHALL, a failover to a server that has
less). What was missed is unknown then: the tail reads the newest entry, holds its ID from now on,
*even if it is lower* than the one before, and publishes a resync.

**The dirty mark.** An announcement that arrives while a read is under way causes another read,
whatever the answer says (``schedule``).

**An answer is bounded, and must be complete.** An answer with as many entries as one may hold has
probably left some behind, and nothing announces those: they were in the stream when the read armed
the key. The tail then reads the newest entry alone, and publishes its ID without entries; a browser
that has missed so many changes had better fetch everything. The newest entry cannot be older than
the last one of the full answer. If the newest entry is older, history was replaced meanwhile: a
resync.

**A read with a cause must find the cause.** A read has a cause if an announcement, or a new
connection, led to it; a sweep's read has no cause. If a stream without entries was announced and
still has none, an entry was added and is gone again: a resync. If the tail holds an ID, and the
answer has that entry alone, no entry was added: the announcement was about something else (EXPIRE,
XTRIM).

**The first entries of an empty stream prove nothing about earlier entries.** Without an ID that the
tail holds, an answer can't show that it is whole. The tail publishes the newest ID without entries.

**A stream that is missing has no ID, and each return of its browsers would be a refetch.** So an
entry is planted that says nothing (``planting``): a position. It is planted *before* the stream
counts as armed, or as taken up anew; else "missing, a notification, DEL, another's plant" looks
like "missing, another's plant". It says nothing *only* inside continuity, in a whole answer that
begins with the entry held. Whatever is taken up anew speaks, planted or not.

**Another server has another history.** After a restart or a failover the server may have lost
entries that no read of ours had seen. A stream that still ends with the ID that we hold proves
nothing then: every stream is a resync.

**One bad stream harms one merchant.** Each read is of one key and has its own answer. An error
reply of the stream (the key holds no stream) concerns that merchant alone, and arms the key like
any other reply. An answer that is too large to be read is the same here: what changed is unknown,
so each change is a resync. Another read arms its key, before this one (``aside``).

**A refused read says nothing.** A server that refuses a read (the user lacks a right, a script
runs) has neither told what is in the stream nor armed the key. The read is put off, its cause is
kept, and it is sent again until it is answered.

**Announcements that are no change cost little.** Redis forgets a key that it tracks when it tracks
too many (``tracking-table-max-keys``), and announces it. The read that follows has Redis forget
another key, and so on, in a circle without an end. A stream whose announcements led to nothing
several times in a row is read a little later, always, and once for all that was announced
meanwhile (``turns``).

**A sweep** reads all streams again without a cause, slowly, all the time, each one once in a round,
whatever comes and goes (``sweep``). It is the last resort against changes that Redis does not
announce, and against errors in the rules above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from sse_push.notification import Change, Entry, EntryId
from sse_push.stream.reads import NEW_ENTRIES, Held, Read, telling
from sse_push.stream.turns import Turns
from sse_push.stream.watch import BEHIND, CLOSED, HOLDS, UNREAD, ResyncReason, Watch


@dataclass(slots=True)
class TailTally:
    """How often a stream was resynchronized, by reason; the numbers only rise."""

    resyncs: dict[ResyncReason, int] = field(
        default_factory=lambda: dict.fromkeys(get_args(ResyncReason), 0)
    )


class Tail:
    """Follow the streams of all merchants with a connection.

    A round of the sweep has ``sweep_steps`` steps. ``may_plant(merchant_id)`` is asked once per
    entry that would be planted.
    ``on_armed(merchant_id, newest)`` is called once per watched merchant, when its stream has been
    read for the first time; ``on_change`` for each change after that. Both are called from within
    ``answered`` or ``failed``, and may call ``watch`` and ``unwatch``.
    """

    def __init__(
        self,
        on_armed: Callable[[str, EntryId | None], None],
        on_change: Callable[[Change], None],
        *,
        sweep_steps: int = 1,
        may_plant: Callable[[str], bool] = lambda _merchant_id: False,
    ) -> None:
        self._on_armed = on_armed
        self._on_change = on_change
        self._may_plant = may_plant
        self._watches: dict[str, Watch] = {}
        self.turns = Turns(sweep_steps)
        self.tally = TailTally()

    def __len__(self) -> int:
        """Return the number of streams that are followed."""
        return len(self._watches)

    def watch(self, merchant_id: str, *, is_taken_over: bool = False) -> None:
        """Begin to follow a stream: it will be read, and its changes announced after that.

        A stream that ``is_taken_over`` was armed at another node of a cluster. What happened to it
        on its way here is not known, so its first read is a resync.
        """
        assert merchant_id not in self._watches, "a merchant is watched once"
        watch = self._watches[merchant_id] = Watch(merchant_id)
        if is_taken_over:
            watch.fall_behind(None, "server_changed")
        self.turns.add(watch)

    def unwatch(self, merchant_id: str) -> Watch:
        """Stop following a stream, and return what was known of it.

        An answer or announcement still on its way is ignored.
        """
        watch = self._watches.pop(merchant_id)
        watch.close()
        self.turns.remove(watch)
        return watch

    def is_armed(self, merchant_id: str) -> bool:
        """Whether a stream that is followed has been read."""
        return self._watches[merchant_id].position is not UNREAD

    def read_again(self, merchant_id: str) -> bool:
        """Have a stream read without a cause; False if it is not followed any more."""
        watch = self._watches.get(merchant_id)
        if watch is not None:
            self.turns.mark(watch)
        return watch is not None

    def announced(self, merchant_id: str | None) -> None:
        """Note that the server has announced a change of a stream; None: of any stream."""
        if merchant_id is None:
            for watch in self._watches.values():
                self.turns.mark_with_cause(watch)
        else:
            known = self._watches.get(merchant_id)
            if known is not None:  # else its last browser has left meanwhile
                self.turns.mark_with_cause(known)

    def connected(self, *, has_history: bool) -> None:
        """Begin again on a new connection, on which nothing is armed.

        Changes since the connection before were not announced, so every read has a cause. Without
        ``has_history`` the server was restarted, or another one was promoted. It may have lost
        entries that were never read here, and then even a stream that still ends with the ID that
        we hold is a resync.
        """
        for watch in self._watches.values():
            if watch.position is not UNREAD and not has_history:
                watch.fall_behind(None, "server_changed")
            watch.is_planting = False
            watch.next_has_cause = True
        self.turns.restart(self._watches.values())

    def reads(self, most: int) -> list[tuple[Watch, Read]]:
        """Return at most ``most`` reads, to be sent now, in this order."""
        batch: list[tuple[Watch, Read]] = []
        for watch in self.turns.take(most):
            watch.begin_read()
            read = Read(watch.merchant_id, self._start(watch), is_planting=watch.is_planting)
            batch.append((watch, read))
        return batch

    def answered(self, watch: Watch, entries: list[Entry]) -> None:
        """Process the answer to a watch's read."""
        if watch.position is CLOSED:
            return
        watch.is_planting = self._is_to_plant(watch, entries)
        if watch.is_planting:
            self._wait_for_plant(watch)
        elif watch.position is UNREAD:
            self._armed(watch, _newest_of(entries))
        elif watch.position is BEHIND:
            self._caught_up(watch, entries)
        elif watch.held is None:
            self._appeared(watch, entries)
        else:
            self._continued(watch, watch.held, entries)
        self._finish(watch)

    def failed(self, watch: Watch, reason: ResyncReason = "not_a_stream") -> None:
        """Process that a watch's read has no answer: its key is no stream, or it is too large."""
        if watch.position is CLOSED:
            return
        watch.is_planting = False
        if watch.position is UNREAD:
            # For a browser this is a stream without entries: it may become one later.
            self._armed(watch, None)
        elif watch.position is BEHIND or watch.held is not None or watch.read_has_cause:
            # The entry held is gone; or the key was announced, and an entry may have been added and
            # deleted before the read.
            self._resync(watch, None, reason)
        # Else a sweep has found what was there before.
        self._finish(watch)

    def refused(self, watch: Watch) -> None:
        """Process the refusal of a watch's read: nothing is known, and nothing was armed."""
        if watch.position is CLOSED:
            return
        watch.next_has_cause = watch.next_has_cause or watch.read_has_cause
        watch.is_planting = False
        self.turns.put_off(watch)

    def _start(self, watch: Watch) -> EntryId | None:
        # At the ID that we hold, not after it: only the answer itself can show that nothing is
        # missing between that ID and what the answer brings.
        if watch.position is BEHIND or watch.held is None:
            return None
        return watch.held.id

    def _finish(self, watch: Watch) -> None:
        if watch.position is CLOSED:
            return  # by a callback
        # After an answer that left the tail behind, the newest entry must be read, and after one
        # that found no stream, an entry planted: nothing announces either.
        self.turns.finish(watch, is_whole=watch.position is not BEHIND and not watch.is_planting)

    def _is_to_plant(self, watch: Watch, entries: list[Entry]) -> bool:
        # A stream that held an entry is read for its newest one first.
        is_missing = not entries and (watch.position is not HOLDS or watch.held is None)
        return is_missing and not watch.is_planting and self._may_plant(watch.merchant_id)

    def _wait_for_plant(self, watch: Watch) -> None:
        """Conclude nothing before the entry is read that is planted now."""
        if watch.position is BEHIND or (watch.position is HOLDS and watch.read_has_cause):
            watch.lose_stream()

    def _armed(self, watch: Watch, newest: Held | None) -> None:
        watch.hold(newest)
        self._on_armed(watch.merchant_id, None if newest is None else newest.id)

    def _continued(self, watch: Watch, held: Held, entries: list[Entry]) -> None:
        if not self._is_continuous(held, entries):
            # Trimmed past the ID held, deleted, or another history: a resync, whatever the newest
            # entry is.
            watch.fall_behind(None, "history_lost")
        elif self._is_cut_short(entries):
            # History is whole, but more is left than an answer holds: only the newest ID counts.
            watch.fall_behind(entries[-1].id, "history_lost")
        elif len(entries) > 1:
            # All that has happened since the entry held, entry by entry.
            watch.hold(Held.of(entries[-1]))
            self._on_change(Change(watch.merchant_id, entries[-1].id, telling(entries[1:])))
        # Else the entry held is still the newest one: the announcement was about something else.

    def _is_continuous(self, held: Held, entries: list[Entry]) -> bool:
        return bool(entries) and Held.of(entries[0]) == held

    def _is_cut_short(self, entries: list[Entry]) -> bool:
        return len(entries) > NEW_ENTRIES

    def _caught_up(self, watch: Watch, entries: list[Entry]) -> None:
        newest = _newest_of(entries)
        floor, loss = watch.gap
        if newest is None:
            # No entry is left. After a change of server, the reason is the change, and not the
            # loss.
            self._resync(watch, None, loss if loss == "server_changed" else "stream_gone")
        elif floor is None or newest.id < floor:
            # History had ended before, or was replaced after the full answer by a shorter one.
            self._resync(watch, newest, loss)
        else:
            # Nothing was lost; there is only too much of it to publish each entry.
            watch.hold(newest)
            self._on_change(Change(watch.merchant_id, newest.id))

    def _appeared(self, watch: Watch, entries: list[Entry]) -> None:
        if entries:
            # Without an ID to begin with, the answer can't show whether it is whole: the newest
            # ID is published without entries.
            watch.hold(Held.of(entries[-1]))
            self._on_change(Change(watch.merchant_id, entries[-1].id))
        elif watch.read_has_cause:
            # A change was announced and there is no entry: an entry was added and deleted.
            self._resync(watch, None, "stream_gone")
        # Else a sweep has found the stream as empty as it was.

    def _resync(self, watch: Watch, newest: Held | None, reason: ResyncReason) -> None:
        """Continue from the newest entry, even if it is older than the one before."""
        self.tally.resyncs[reason] += 1
        watch.hold(newest)
        newest_id = None if newest is None else newest.id
        self._on_change(Change(watch.merchant_id, newest_id, is_resync=True))


def _newest_of(entries: list[Entry]) -> Held | None:
    return Held.of(entries[-1]) if entries else None
