"""The simulated browsers of one house: how many listen, and how fast the newest sale reached them.

Knows what the cinema's notifications say. Does not know how events arrive, nor who shows the count.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field

SETTLED_MS = 250
"""How long after a sale the browsers that it has reached are counted."""


@dataclass(slots=True)
class Audience:
    """Counts one sale at a time: a newer one takes its place."""

    listening: int = 0
    seat: str = ""
    sold_at_ms: int = 0
    delays_ms: list[int] = field(default_factory=list)
    told: int = 0

    def refreshed(self, text: str, now_ms: int) -> None:
        """Note that one browser has received a refresh, with this text as its data.

        A refresh without a sale is ignored, and one for an older sale than the counted one.
        """
        match json.loads(text):
            case {"data": {"seat": str(seat), "sold_at_ms": int(sold_at_ms)}}:
                if sold_at_ms > self.sold_at_ms:
                    self.seat, self.sold_at_ms, self.delays_ms, self.told = seat, sold_at_ms, [], 0
                if sold_at_ms == self.sold_at_ms:
                    self.delays_ms.append(now_ms - sold_at_ms)

    def take_count(self, now_ms: int) -> dict[str, object] | None:
        """Return the count of the newest sale as soon as it has settled, and when it has grown."""
        if len(self.delays_ms) == self.told or now_ms - self.sold_at_ms < SETTLED_MS:
            return None
        self.told = len(self.delays_ms)
        return {
            "seat": self.seat,
            "refreshed": self.told,
            "listening": self.listening,
            "median_ms": round(statistics.median(self.delays_ms)),
            "last_ms": max(self.delays_ms),
        }
