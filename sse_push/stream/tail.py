"""What to read next, and what an answer means: the tail of many streams as a state machine.

Knows entry IDs and the rules under which no change is overlooked. Does no I/O and does not know
Redis: ``stream`` sends the reads, and brings the answers and the announcements.

A stream is *announced* when the server says that it has changed since it was last read. Each
announcement is given once, until the next read asks for it again (the read *arms* the key), so
that a rule broken here is not a delay: it is a browser that stays silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from sse_push.notification import Change, Entry, EntryId

NEW_ENTRIES = 32
"""Fewer new entries than this are told one by one; of more, only that there are."""


ResyncReason = Literal["server_changed", "history_lost", "stream_gone", "not_a_stream"]
"""Why what we held of a stream no longer holds: another server, or another run of it; what we held
is not in the stream; the stream is not there; its key is of another type."""


@dataclass(slots=True)
class TailTally:
    """How often a stream had to be taken up anew, by reason; the numbers only rise."""

    resyncs: dict[ResyncReason, int] = field(
        default_factory=lambda: dict.fromkeys(get_args(ResyncReason), 0)
    )


class Read(NamedTuple):
    """One read of one stream, from ``start`` to ``end``, both inclusive; None: its newest entry.

    The answer has at most ``NEW_ENTRIES + 1`` entries, oldest first.
    """

    merchant_id: str
    start: EntryId | None = None
    end: EntryId | None = None


class Watch:
    """One merchant's stream: what we hold of it, and what we owe it."""

    __slots__ = (
        "dirty",
        "floor",
        "held",
        "is_armed",
        "is_behind",
        "is_closed",
        "is_doubted",
        "is_queued",
        "is_reading",
        "loss",
        "merchant_id",
        "read_is_doubted",
    )

    def __init__(self, merchant_id: str) -> None:
        self.merchant_id = merchant_id
        self.held: EntryId | None = None
        """The newest entry that we know of; None if the stream had none."""
        self.is_armed = False
        """The first read has been answered."""
        self.dirty = False
        """It may have changed since the last read was sent."""
        self.is_doubted = False
        """It *has* changed, or we were blind: a read that finds nothing is not to be believed."""
        self.is_queued = False
        self.is_reading = False
        self.read_is_doubted = False
        """What ``is_doubted`` was when the read under way was sent."""
        self.is_behind = False
        """What we hold leads nowhere; the next read asks for the newest entry."""
        self.floor: EntryId | None = None
        """If behind: the newest entry must not be lower; None: our history has ended."""
        self.loss: ResyncReason = "history_lost"
        """If behind: what it will have been if it is a resync."""
        self.is_closed = False


class Tail:
    """Follow the streams of all merchants that somebody listens to.

    ``on_armed(merchant_id, newest)`` is called once per watched merchant, when its stream has been
    read for the first time; ``on_change`` for whatever is new after that. Both at once, from
    within ``answered`` or ``refused``.
    """

    def __init__(
        self,
        on_armed: Callable[[str, EntryId | None], None],
        on_change: Callable[[Change], None],
    ) -> None:
        self._on_armed = on_armed
        self._on_change = on_change
        self._watches: dict[str, Watch] = {}
        self._queue: deque[Watch] = deque()
        self._sweep: Iterator[Watch] = iter(())
        self.tally = TailTally()

    def __len__(self) -> int:
        return len(self._watches)

    def watch(self, merchant_id: str) -> None:
        """Begin to follow a stream: it will be read, and from then on announced."""
        assert merchant_id not in self._watches, "a merchant is watched once"
        watch = self._watches[merchant_id] = Watch(merchant_id)
        self._mark(watch)

    def unwatch(self, merchant_id: str) -> None:
        """Stop following; an answer or announcement that is still on its way means nothing."""
        self._watches.pop(merchant_id).is_closed = True

    def announced(self, merchant_id: str | None) -> None:
        """Take the server's word that a stream has changed; None: all may have."""
        if merchant_id is not None:
            watch = self._watches.get(merchant_id)
            if watch is not None:
                self._doubt(watch)
            return
        for watch in self._watches.values():
            self._doubt(watch)

    def connected(self, *, has_history: bool) -> None:
        """Begin again on a new connection: nothing is armed there, and we were blind till now.

        Without ``has_history`` the server is not the one that we knew: it was restarted, or
        another was promoted. It may have lost entries that we never saw, and then even a stream
        that still ends with what we hold is a resync.
        """
        self._queue.clear()
        for watch in self._watches.values():
            watch.is_reading = watch.is_queued = False
            if watch.is_armed and not has_history:
                watch.is_behind, watch.floor, watch.loss = True, None, "server_changed"
            self._doubt(watch)

    def sweep(self, share: float) -> None:
        """Read a share (0 to 1) of all streams again without a cause, in turn."""
        for _ in range(-int(-len(self._watches) * share // 1)):
            watch = next(self._sweep, None)
            if watch is None:
                self._sweep = iter(list(self._watches.values()))
                watch = next(self._sweep, None)
            if watch is not None and not watch.is_closed:
                self._mark(watch)

    def reads(self, most: int) -> list[tuple[Watch, Read]]:
        """Return at most so many reads, to be sent now, in this order.

        A stream's mark is cleared here, before its read is sent: an announcement that comes
        while the read is under way sets it again, and the stream is read once more.
        """
        batch: list[tuple[Watch, Read]] = []
        while self._queue and len(batch) < most:
            watch = self._queue.popleft()
            watch.is_queued = False
            if watch.is_closed:
                continue
            self._begin(watch)
            batch.append((watch, Read(watch.merchant_id, self._start(watch))))
        return batch

    def answered(self, watch: Watch, entries: list[Entry]) -> None:
        """Take the answer to a watch's read."""
        watch.is_reading = False
        if watch.is_closed:
            return
        if not watch.is_armed:
            watch.is_armed = True
            watch.held = entries[-1].id if entries else None
            self._on_armed(watch.merchant_id, watch.held)
        elif watch.is_behind:
            self._caught_up(watch, entries)
        elif watch.held is None:
            self._appeared(watch, entries)
        else:
            self._continued(watch, watch.held, entries)
        self._again(watch)

    def refused(self, watch: Watch) -> None:
        """Take an error reply to a watch's read: its key holds something that is no stream."""
        watch.is_reading = False
        if watch.is_closed:
            return
        if not watch.is_armed:
            watch.is_armed = True
            self._on_armed(watch.merchant_id, None)
        elif watch.held is not None or watch.is_behind or watch.read_is_doubted:
            self._adopt(watch, None, "not_a_stream")
        self._again(watch)

    def _start(self, watch: Watch) -> EntryId | None:
        # At the ID we hold, not after it: only the answer itself can show that nothing is missing
        # between what we hold and what it brings.
        return None if watch.is_behind else watch.held

    def _begin(self, watch: Watch) -> None:
        watch.is_reading = True
        watch.dirty = False
        watch.read_is_doubted = watch.is_doubted
        watch.is_doubted = False

    def _mark(self, watch: Watch) -> None:
        watch.dirty = True
        if not watch.is_reading and not watch.is_queued:
            watch.is_queued = True
            self._queue.append(watch)

    def _doubt(self, watch: Watch) -> None:
        watch.is_doubted = True
        self._mark(watch)

    def _again(self, watch: Watch) -> None:
        if watch.dirty:
            self._mark(watch)

    def _continued(self, watch: Watch, held: EntryId, entries: list[Entry]) -> None:
        if not self._is_continuous(held, entries):
            # Trimmed past us, deleted, or another history altogether.
            watch.is_behind, watch.floor, watch.dirty = True, None, True
            watch.loss = "history_lost"
        elif self._is_cut_short(entries):
            watch.is_behind, watch.floor, watch.dirty = True, entries[-1].id, True
            watch.loss = "history_lost"
        elif len(entries) > 1:
            watch.held = entries[-1].id
            self._on_change(Change(watch.merchant_id, watch.held, tuple(entries[1:])))

    def _is_continuous(self, held: EntryId, entries: list[Entry]) -> bool:
        return bool(entries) and entries[0].id == held

    def _is_cut_short(self, entries: list[Entry]) -> bool:
        return len(entries) > NEW_ENTRIES

    def _caught_up(self, watch: Watch, entries: list[Entry]) -> None:
        newest = entries[-1].id if entries else None
        if newest is None or watch.floor is None or newest < watch.floor:
            is_gone = newest is None and watch.loss != "server_changed"
            self._adopt(watch, newest, "stream_gone" if is_gone else watch.loss)
        else:
            watch.is_behind = False
            watch.held = newest
            self._on_change(Change(watch.merchant_id, newest))

    def _appeared(self, watch: Watch, entries: list[Entry]) -> None:
        if entries:
            # There was nothing that could show whether this is all that came, so it says
            # nothing of what has changed.
            watch.held = entries[-1].id
            self._on_change(Change(watch.merchant_id, watch.held))
        elif watch.read_is_doubted:
            self._adopt(watch, None, "stream_gone")  # came and went before we looked

    def _adopt(self, watch: Watch, newest: EntryId | None, reason: ResyncReason) -> None:
        self.tally.resyncs[reason] += 1
        watch.is_behind = False
        watch.held = newest
        self._on_change(Change(watch.merchant_id, newest, is_resync=True))


def entries_between(start: EntryId, end: EntryId, entries: list[Entry]) -> tuple[Entry, ...] | None:
    """Return what came after ``start``, up to ``end``, or None if it is not all known.

    ``entries`` is the answer to ``Read(merchant_id, start, end)``: it is whole only if it begins
    with ``start`` itself, ends with ``end``, and was not cut short.
    """
    if len(entries) > NEW_ENTRIES or not entries:
        return None
    if entries[0].id != start or entries[-1].id != end:
        return None
    return tuple(entries[1:])
