"""Which streams are read next: at once, a little later, or when the sweep reaches them.

Knows why a read waits. Does not know what a read asks for, nor what its answer means: ``tail``
decides that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from sse_push.stream.schedule import IDLE, READING_DIRTY
from sse_push.stream.sweep import Sweep
from sse_push.stream.watch import Watch

_IN_VAIN = 4
"""After so many announcements in a row that were no change, the next one waits a little. A
notification makes at most two: those of its XADD and its EXPIRE."""


class Turns:
    """Every stream that is followed, and when its turn to be read comes.

    A round of the sweep has ``sweep_steps`` steps. The owner calls ``retry`` while reads are
    refused, and ``collect`` soon after ``has_late`` becomes true.
    """

    def __init__(self, sweep_steps: int) -> None:
        self._queue: OrderedDict[Watch, None] = OrderedDict()
        """Those to be read next; a stream that is left while Redis is away leaves it too."""
        self._refused: dict[Watch, None] = {}
        """Those whose read was refused."""
        self._late: dict[Watch, None] = {}
        """Those that were announced after many announcements in vain."""
        self._sweep: Sweep[Watch] = Sweep(sweep_steps)

    def __bool__(self) -> bool:
        """Whether a read is due now."""
        return bool(self._queue)

    @property
    def has_late(self) -> bool:
        """Whether an announced stream waits for ``collect``."""
        return bool(self._late)

    def add(self, watch: Watch) -> None:
        """Give turns to a stream from now on, the first one at once."""
        self._sweep.add(watch)
        self.mark(watch)

    def remove(self, watch: Watch) -> None:
        """Give the stream no more turns."""
        self._sweep.remove(watch)
        self._queue.pop(watch, None)
        self._refused.pop(watch, None)
        self._late.pop(watch, None)

    def take(self, most: int) -> Iterator[Watch]:
        """Take at most ``most`` streams out of the queue, in their order."""
        for _ in range(min(most, len(self._queue))):
            yield self._queue.popitem(last=False)[0]

    def mark_with_cause(self, watch: Watch) -> None:
        """Have an announced stream read: at once, unless many announcements were no change."""
        watch.next_has_cause = True
        if watch.in_vain >= _IN_VAIN and watch.schedule is IDLE:
            self._wait(watch)
        else:
            self.mark(watch)

    def mark(self, watch: Watch) -> None:
        """Have a stream read without a cause."""
        if watch.mark():
            self._queue[watch] = None

    def collect(self) -> None:
        """Have the streams read that wait after many announcements in vain."""
        for watch in self._late:
            self._queue_again(watch)
        self._late.clear()

    def finish(self, watch: Watch, *, is_whole: bool) -> None:
        """Note that the read is answered; ``is_whole``: its answer asks for no other read."""
        if is_whole and watch.in_vain >= _IN_VAIN and watch.schedule is READING_DIRTY:
            self._wait(watch)
        elif watch.finish_read(is_whole=is_whole):
            self._queue[watch] = None

    def put_off(self, watch: Watch) -> None:
        """Note that the read is refused."""
        watch.put_off()
        self._refused[watch] = None

    def retry(self, most: int) -> None:
        """Have at most ``most`` streams read whose read was refused, those that waited longest."""
        for watch in list(self._refused)[:most]:
            del self._refused[watch]
            self._queue_again(watch)

    def sweep(self) -> list[Watch]:
        """Have the streams read whose turn it is, without a cause; return those streams."""
        turns = self._sweep.step()
        for watch in turns:
            self.mark(watch)
        return turns

    def restart(self, watches: Iterable[Watch]) -> None:
        """Have all streams read that are followed: the connection is new."""
        self._queue.clear()
        self._refused.clear()
        self._late.clear()
        for watch in watches:
            watch.in_vain = 0
            self._queue_again(watch)

    def _wait(self, watch: Watch) -> None:
        watch.put_off()
        self._late[watch] = None

    def _queue_again(self, watch: Watch) -> None:
        watch.restart()
        self._queue[watch] = None
