"""Counts what is refused, and logs it: by reason, and by whom or what it is about.

Knows reasons, counts and time. Does not know requests, nor how a refusal is answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sse_push.errors import Refusal, RefusalReason
from sse_push.runtime.log_pace import INTERVAL_S

logger = logging.getLogger(__name__)

SUBJECTS_MAX = 5
"""At most this many subjects of a reason have lines of their own in a minute: clients choose what
they send, and could fill the disk. All others together have one line."""

_WHO_CHARACTERS = 80
"""As much of a name is logged; the name of a site is shorter."""

_NOTHING = "-"


class Subject(NamedTuple):
    """What refusals of one reason have in common: the path, and whom or what they are about."""

    path: str
    who: str


_OTHERS = Subject(_NOTHING, "others")


@dataclass(slots=True)
class _Minute:
    """The refusals of one reason that are counted, and not logged yet."""

    began_at: float
    counts: dict[Subject, int] = field(default_factory=dict)
    others: int = 0


class Refusals:
    """Counts every refusal of a process by its code and its reason, and logs each of them once.

    The first refusal of a reason and subject is logged at once, and those after it once a minute,
    with their ``count``. A minute has at most ``SUBJECTS_MAX`` + 1 lines of a reason, and ends when
    ``log_due`` is called, so that the last refusals of a flood are logged as well.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.codes = dict.fromkeys(Refusal, 0)
        """How often each code was the answer, or the result of an item of an array."""
        self.reasons = dict.fromkeys(RefusalReason, 0)
        """How often each reason was; of clients that were put off by a soft answer as well."""
        self._clock = clock
        self._minutes: dict[RefusalReason, _Minute] = {}

    def count(self, reason: RefusalReason, *, is_soft: bool = False) -> None:
        """Count a refusal, and log nothing; a soft answer has no code."""
        self.reasons[reason] += 1
        if not is_soft:
            self.codes[reason.refusal] += 1

    def add(self, reason: RefusalReason, path: str, who: str, *, is_soft: bool = False) -> None:
        """Count a refusal, and log it, now or at the end of the minute."""
        self.count(reason, is_soft=is_soft)
        minute = self._minutes.get(reason)
        if minute is None:
            minute = self._minutes[reason] = _Minute(self._clock())
        subject = Subject(path, who[:_WHO_CHARACTERS])
        if subject in minute.counts:
            minute.counts[subject] += 1
        elif len(minute.counts) < SUBJECTS_MAX:
            minute.counts[subject] = 0
            _log(reason, subject, 1)
        else:
            minute.others += 1

    def log_due(self) -> None:
        """Log what was counted in each minute that is over; called about once a second."""
        now = self._clock()
        for reason, minute in list(self._minutes.items()):
            if now - minute.began_at >= INTERVAL_S:
                self._end(reason, minute, now)

    def log_rest(self) -> None:
        """Log what was counted and not logged, at the end of the process."""
        for reason, minute in list(self._minutes.items()):
            self._end(reason, minute, self._clock())

    def _end(self, reason: RefusalReason, minute: _Minute, now: float) -> None:
        active = {subject: count for subject, count in minute.counts.items() if count}
        for subject, count in active.items():
            _log(reason, subject, count)
        if minute.others:
            _log(reason, _OTHERS, minute.others)
        if active or minute.others:
            # A subject that was logged now has its next line in a minute.
            self._minutes[reason] = _Minute(now, dict.fromkeys(active, 0))
        else:
            del self._minutes[reason]


def _log(reason: RefusalReason, subject: Subject, count: int) -> None:
    logger.warning(
        "refused reason=%s status=%d path=%s who=%s setting=%s count=%d",
        reason.value,
        reason.refusal.status,
        subject.path,
        subject.who,
        reason.setting or _NOTHING,
        count,
    )
