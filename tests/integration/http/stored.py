"""What Redis has stored, and how a refused notification is answered."""

from __future__ import annotations

from sse_push.stream.contract import PLANTED_FIELD
from tests.harness.redis import Redis

NAME = "1 to 64 characters of A-Z a-z 0-9 . _ : -"
MERCHANT_ID = f"merchant_id: expected {NAME}, or an integer; got"


def key_of(merchant: str) -> str:
    return f"sse_push:{{{merchant}}}"


def entries(redis: Redis, merchant: str) -> int:
    """Return the number of notifications that are stored: a planted entry is none."""
    found = redis.cli("XRANGE", key_of(merchant), "-", "+")
    return int(redis.cli("XLEN", key_of(merchant))) - found.count(PLANTED_FIELD)


_ALL_ENTRIES = """
local entries = 0
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('TYPE', key).ok == 'stream' and key:sub(1, 11) ~= 'sse_push:{~' then
    entries = entries + redis.call('XLEN', key)
  end
end
return entries
"""


def appends(redis: Redis) -> int:
    """Return the number of entries that this Redis has, in all streams but those of the probes."""
    return int(redis.cli("EVAL", _ALL_ENTRIES, "0"))
