"""A follower whose connection, or whose Redis, breaks; and its end."""

from __future__ import annotations

import asyncio
import logging
import math
import re

import pytest

from sse_push.notification import Change
from sse_push.stream.pipeline import until_one_fails
from tests.harness.processes import frozen
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import Followed, following, stopped
from tests.integration.stream.servers import Server, restart


async def test_works_end_together_as_soon_as_one_of_them_ends() -> None:
    """None of the follower's ends by itself; if one did, a new connection would follow."""
    is_canceled = False

    async def go_on() -> None:
        nonlocal is_canceled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_canceled = True
            raise

    await until_one_fails(go_on(), asyncio.sleep(0))

    assert is_canceled


async def test_a_follower_that_is_canceled_ends_at_any_step(server: Server, merchant: str) -> None:
    """A process that stops waits for it."""
    for steps in range(12):
        followed = Followed(server.url, 30 * SECOND)
        task = asyncio.create_task(followed.run())
        await followed.watch(merchant)
        followed.follower.watch(f"{merchant}-other")
        for _ in range(steps):
            await asyncio.sleep(0)

        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=SECOND)
        await stopped(task)

        assert ended == {task}, f"canceled {steps} steps after it began to watch"


async def test_a_follower_that_is_canceled_as_its_connection_is_lost_ends(
    server: Server, merchant: str
) -> None:
    """A whole machine that stops, stops Redis and the service at the same time."""
    for steps in range(10):
        followed = Followed(server.url, 30 * SECOND)
        task = asyncio.create_task(followed.run())
        await followed.watch(merchant)
        await until(lambda: followed.follower.probe.age_s < math.inf, "a quiet connection")  # noqa: B023
        server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
        for _ in range(steps):
            await asyncio.sleep(0)

        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=SECOND)
        await stopped(task)

        assert ended == {task}, f"canceled {steps} steps after its connection was lost"


async def test_a_connection_that_is_lost_while_it_is_written_to_is_made_anew(
    server: Server, merchant: str
) -> None:
    for steps in range(3):
        first, second = f"{merchant}-{steps}-first", f"{merchant}-{steps}-second"
        async with following(server.url) as followed:
            await followed.watch(first)
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
            for _ in range(steps):
                await asyncio.sleep(0)
            await followed.watch(second)
            await followed.until_newest(server.add(first))


async def test_a_connection_that_is_lost_right_after_it_was_written_to_is_made_anew(
    server: Server, merchant: str
) -> None:
    for steps in range(3):
        first, second = f"{merchant}-{steps}-first", f"{merchant}-{steps}-second"
        async with following(server.url) as followed:
            await followed.watch(first)
            followed.follower.watch(second)
            for _ in range(steps):
                await asyncio.sleep(0)
            server.cli("CLIENT", "KILL", "ID", *server.clients("tail"))
            await followed.until_newest(server.add(first))


async def test_a_restart_without_persistence_is_a_resync_for_every_live_merchant(
    mortal: Redis, merchant: str
) -> None:
    server, other = Server(mortal.url), f"{merchant}-other"
    server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant, other)

        mortal.kill()
        restart(mortal)
        changes = sorted(await followed.next(2))
        back = server.add(merchant)
        await followed.next(3)

    assert changes == [
        Change(merchant, None, is_resync=True),
        Change(other, None, is_resync=True),
    ]
    assert followed.changes[2] == Change(merchant, back)
    assert followed.follower.tally.tail.resyncs == {
        "server_changed": 2,
        "history_lost": 0,
        "stream_gone": 0,
        "not_a_stream": 0,
        "too_large": 0,
    }


async def test_a_server_that_was_restarted_is_a_resync_even_if_it_kept_all_entries(
    mortal: Redis, merchant: str
) -> None:
    server = Server(mortal.url)
    newest = server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant)

        server.cli("SAVE")
        mortal.kill()
        restart(mortal)
        changes = await followed.next()

    assert changes == [Change(merchant, newest, is_resync=True)]


async def test_a_request_whose_reply_is_lost_returns_none(mortal: Redis, merchant: str) -> None:
    server = Server(mortal.url)
    first, last = server.add(merchant), server.add(merchant)
    async with following(mortal.url) as followed:
        await followed.watch(merchant)
        with frozen(mortal.process.pid):
            asked = asyncio.create_task(followed.follower.between(merchant, first, last))
            await until(
                lambda: bool(followed.follower._pipeline._in_flight), "the question to be sent"
            )
            mortal.kill()
            async with asyncio.timeout(5 * SECOND):
                answer = await asked

    assert answer is None


async def test_an_interruption_is_logged_once_and_its_end_once(
    mortal: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with following(mortal.url) as followed:
        for round_ in (1, 2):
            await until(lambda: len(caplog.records) == 2 * round_ - 1, "connected")  # noqa: B023
            mortal.kill()
            # Several attempts: one line.
            await until(lambda: len(caplog.records) == 2 * round_, "interrupted")  # noqa: B023
            refused = followed.follower.probe.age_s
            await until(
                lambda: followed.follower.probe.age_s > refused + SECOND / 2,  # noqa: B023
                "some attempts",
            )
            restart(mortal)
        await until(lambda: len(caplog.records) == 5, "connected again")

    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "tail connected merchants=0"
    for away, back in (messages[1:3], messages[3:5]):
        assert away.startswith("tail interrupted, reconnecting cause=")
        assert len(away) > len("tail interrupted, reconnecting cause=")
        found = re.fullmatch(r"tail connected merchants=0 away_s=(\d+\.\d)", back)
        assert found is not None
        assert float(found[1]) >= SECOND / 2 - 0.1
    assert followed.follower.tally.reconnects == 2
