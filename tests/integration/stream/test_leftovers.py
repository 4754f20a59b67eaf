"""Keys that Redis tracks for nobody: what it forgets, and what it must not."""

from __future__ import annotations

import pytest

from sse_push.notification import Change
from sse_push.stream.contract import forget_command
from tests.harness.keys import stream_key
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, restart

LEFTOVERS = 20
MERCHANTS = 300


def tracked(server: Server) -> int:
    lines = server.cli("INFO", "stats").splitlines()
    return int(next(line for line in lines if "tracking_total_keys" in line).partition(":")[2])


def forget(server: Server, merchant: str, *user: str) -> str:
    return server.cli(*user, *map(str, forget_command(stream_key(merchant))))


async def test_merchants_that_come_and_go_leave_so_many_keys_and_no_more(
    server: Server, merchant: str
) -> None:
    """The end of a tracked connection would not help: Redis keeps the keys all the same."""
    before = tracked(server)
    async with following(server.url) as followed:
        followed.follower._leftovers._most = LEFTOVERS
        for number in range(MERCHANTS):
            await followed.watch(f"{merchant}-{number}")
            followed.follower.unwatch(f"{merchant}-{number}")

        # Those of the probe and of the revocations may be new, too.
        await until(lambda: tracked(server) <= before + LEFTOVERS + 3, "the others to be forgotten")
    assert tracked(server) >= before + LEFTOVERS


async def test_a_stream_that_is_there_is_not_touched(server: Server, merchant: str) -> None:
    added = server.add(merchant)
    server.cli("SET", stream_key(f"{merchant}-text"), "something else")

    replies = [forget(server, each) for each in (merchant, f"{merchant}-text", f"{merchant}-none")]

    assert replies == ["0", "0", "1"]
    assert str(added) in server.cli("XRANGE", stream_key(merchant), "-", "+")
    assert server.cli("EXISTS", stream_key(f"{merchant}-none")) == "0"


async def test_whoever_follows_a_stream_whose_key_is_forgotten_hears_that_and_all_after_it(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        await followed.watch(merchant)

        forget(server, merchant)
        resync, *_ = await followed.next()
        added = server.add(merchant)
        *_, change = await followed.next(2)

    assert resync == Change(merchant, None, is_resync=True)
    assert change.newest == added


async def test_a_merchant_who_is_followed_again_at_once_is_not_forgotten(
    server: Server, merchant: str
) -> None:
    async with following(server.url) as followed:
        followed.follower._leftovers._most = 0
        await followed.watch(merchant, f"{merchant}-marker")

        followed.follower.unwatch(merchant)
        await followed.watch(merchant)
        await followed.settle(server, f"{merchant}-marker")

    assert followed.changes == []


@pytest.mark.parametrize("change", ["announced", "flushed", "restarted"])
async def test_what_redis_does_not_remember_any_more_is_not_left_over(
    mortal: Redis, change: str
) -> None:
    server = Server(mortal.url)
    async with following(server.url, SECOND) as followed:
        await followed.watch("42")
        followed.follower.unwatch("42")
        assert set(followed.follower._leftovers._merchants) == {"42"}

        if change == "announced":
            server.add("42")
        elif change == "flushed":
            server.cli("FLUSHALL")
        else:
            mortal.kill()
            restart(mortal)

        await until(lambda: not followed.follower._leftovers._merchants, "nothing to be left over")


@pytest.mark.parametrize("right", ["+expire", "+xadd", "+ttl"])
async def test_a_user_without_a_right_leaves_nothing_behind(
    server: Server, merchant: str, right: str
) -> None:
    rights = {"+eval", "+expire", "+xadd", "+ttl"} - {right}
    server.cli("ACL", "SETUSER", "limited", "on", "nopass", "~*", "-@all", *sorted(rights))
    script = "AUTH limited any\n" + " ".join(
        f'"{word}"' for word in map(str, forget_command(stream_key(merchant)))
    )

    reply = server.cli(script=script)

    assert "ERR" in reply
    assert server.cli("EXISTS", stream_key(merchant)) == "0"
