"""What Redis has stored, and how a refused notification is answered."""

from __future__ import annotations

from tests.harness.redis import Redis

NAME = "1 to 64 characters of A-Z a-z 0-9 . _ : -"
MERCHANT_ID = f"merchant_id: expected {NAME}, or an integer; got"


def key_of(merchant: str) -> str:
    return f"sse_push:{{{merchant}}}"


def entries(redis: Redis, merchant: str) -> int:
    return int(redis.cli("XLEN", key_of(merchant)))


def appends(redis: Redis) -> int:
    """Return the number of XADD commands that this Redis has executed, on any key."""
    lines = redis.cli("INFO", "commandstats").splitlines()
    line = next((each for each in lines if each.startswith("cmdstat_xadd:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])
