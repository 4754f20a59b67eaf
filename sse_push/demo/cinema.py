"""The cinema's data: which seats are sold, and which sessions have ended, in SQLite.

Knows SQL. Does not know HTTP, nor that browsers are notified.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROWS = 8
SEATS_PER_ROW = 12
SHOWS = {
    "roxy": ("The Last Lighthouse", "20:15"),
    "lumiere": ("Paper Planets", "21:00"),
}
SEATS = [
    f"{chr(ord('A') + row)}{place}" for row in range(ROWS) for place in range(1, 1 + SEATS_PER_ROW)
]

_ENDED_SESSIONS_MAX = 1_000
"""At most this many ended sessions are remembered, the newest ones."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A sold seat: the tab that bought it, and the time in milliseconds since 1970."""

    seat: str
    by: str
    sold_at_ms: int


class Cinema:
    """All houses, in one SQLite file; each call has its own connection, so any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS sale (merchant_id TEXT, seat TEXT, by TEXT,"
                " sold_at_ms INTEGER, PRIMARY KEY (merchant_id, seat))"
            )
            database.execute("CREATE TABLE IF NOT EXISTS ended_session (name TEXT)")

    def sales(self, merchant_id: str) -> dict[str, Sale]:
        """Return the sales of a house by seat."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT seat, by, sold_at_ms FROM sale WHERE merchant_id = ?", (merchant_id,)
            )
            return {seat: Sale(seat, by, sold_at_ms) for seat, by, sold_at_ms in rows}

    def sell(self, merchant_id: str, seat: str, by: str) -> tuple[Sale, bool]:
        """Sell a seat if it is free; return the seat's sale, and whether this call made it."""
        sale = Sale(seat, by, time.time_ns() // 1_000_000)
        with self._transaction() as database:
            sold = database.execute(
                "INSERT INTO sale VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (merchant_id, seat, by, sale.sold_at_ms),
            )
            is_new = sold.rowcount == 1
        return (sale, True) if is_new else (self.sales(merchant_id)[seat], False)

    def empty(self, merchant_id: str) -> None:
        """Undo all sales of a house."""
        with self._transaction() as database:
            database.execute("DELETE FROM sale WHERE merchant_id = ?", (merchant_id,))

    def end_session(self, name: str, at_most: int = _ENDED_SESSIONS_MAX) -> None:
        """Remember that this session has ended, and forget the oldest beyond ``at_most``."""
        with self._transaction() as database:
            database.execute("INSERT INTO ended_session VALUES (?)", (name,))
            database.execute(
                "DELETE FROM ended_session"
                " WHERE rowid <= (SELECT max(rowid) FROM ended_session) - ?",
                (at_most,),
            )

    def has_ended(self, name: str) -> bool:
        """Return whether this session has ended."""
        with self._transaction() as database:
            found = database.execute("SELECT 1 FROM ended_session WHERE name = ?", (name,))
            return found.fetchone() is not None

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5)) as database, database:
            yield database
