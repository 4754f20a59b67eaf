"""Changes are heard by messages where Redis refuses to announce them, and none is overlooked."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable

import pytest

from sse_push.access.revocation import Revocation
from sse_push.notification import Notification
from sse_push.stream import BellChoice, parse_address
from sse_push.stream.announcing import Announcing
from sse_push.stream.failures import RedisConnectionError
from sse_push.stream.opening import TrackingRefused, Unsuited
from tests.harness.keys import KEYS, REVOCATIONS_KEY
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND, until
from tests.integration.stream.following import MB, Followed, following, stopped
from tests.integration.stream.servers import Server, led, proxied

UNTRACKED = ("on", ">secret", "~*", "&*", "+@all", "-client|tracking")
"""The rights of a user to whom Redis answers as hosted services do that have no tracking."""

NO_SWEEP_S = 3600
"""So long that no sweep finds what is not heard."""

FELL_BACK = "redis refuses tracking, changes are heard by PUBLISH cause=NOPERM "


def user(server: Server | Redis, name: str, *rights: str) -> str:
    """Make a user, and return the URL with its name."""
    server.cli("ACL", "SETUSER", name, "reset", *(rights or UNTRACKED))
    return server.url.replace("://", f"://{name}:secret@")


def announcing(url: str, choice: BellChoice = "auto") -> Announcing:
    return Announcing(parse_address(url), KEYS.bell, choice, reply_limit_bytes=MB)


async def until_proved(followed: Followed) -> None:
    await until(lambda: followed.follower.age_s < math.inf, "a probe to come back")


async def test_a_server_that_refuses_tracking_is_followed_by_messages(
    server: Server, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.cli("CONFIG", "RESETSTAT")
    async with following(user(server, "hosted"), sweep_s=NO_SWEEP_S) as followed:
        await until_proved(followed)
        await followed.watch(merchant)
        added = [await followed.appender.append(Notification(merchant, at)) for at in ("a", "b")]
        await followed.until_newest(added[-1].entry_id)
        kind, calls = followed.follower.announcing.kind, server.calls("client|tracking")

    told = [each for each in caplog.messages if "tracking" in each]
    assert kind == "pubsub"
    assert calls == 0
    assert len(told) == 1
    assert told[0].startswith(FELL_BACK)
    assert not any(change.is_resync for change in followed.changes)


async def test_a_process_that_hears_messages_is_told_by_one_that_is_tracked(
    own_redis: Server, merchant: str
) -> None:
    appender = Followed(own_redis.url, 5 * SECOND).appender
    appending = asyncio.create_task(appender.run())
    async with following(user(own_redis, "hosted"), sweep_s=NO_SWEEP_S) as other:
        await other.watch(merchant)
        added = await appender.append(Notification(merchant))
        await other.until_newest(added.entry_id)
        kind = other.follower.announcing.kind
    await stopped(appending)

    assert kind == "pubsub"


async def test_a_backend_that_adds_and_publishes_is_heard(own_redis: Server, merchant: str) -> None:
    async with following(own_redis.url, bell="pubsub", sweep_s=NO_SWEEP_S) as followed:
        await followed.watch(merchant)
        added = own_redis.add(merchant)
        own_redis.cli("PUBLISH", KEYS.bell, f"- 0 {merchant}")
        await followed.until_newest(added)


async def test_a_revocation_is_heard(own_redis: Server, merchant: str) -> None:
    own_redis.cli("DEL", REVOCATIONS_KEY)
    async with following(own_redis.url, bell="pubsub", sweep_s=NO_SWEEP_S) as followed:
        await followed.until_known()
        await followed.appender.append(Revocation(merchant))
        await followed.until_known(merchant)


async def test_a_lost_message_is_noticed_by_the_next_one_of_its_appender(
    own_redis: Server, merchant: str
) -> None:
    """All is read again: the stream whose message was lost, and that of the revocations."""
    async with following(own_redis.url, bell="pubsub", sweep_s=NO_SWEEP_S) as followed:
        await followed.watch(merchant, "other")
        await until_proved(followed)
        followed.changes.clear()
        missed = own_redis.add(merchant)
        own_redis.cli("XADD", REVOCATIONS_KEY, "*", "merchant_id", "revoked")
        own_redis.cli("PUBLISH", KEYS.bell, "0123456789abcdef 2 other")
        await followed.until_newest(missed)
        await followed.until_known("revoked")


async def test_a_subscription_that_is_lost_has_all_streams_read_again(
    own_redis: Server, merchant: str
) -> None:
    async with following(own_redis.url, bell="pubsub", sweep_s=NO_SWEEP_S) as followed:
        await followed.watch(merchant)
        await until_proved(followed)
        (subscribed,) = own_redis.clients("bell")
        missed = own_redis.add(merchant)
        own_redis.cli("CLIENT", "KILL", "ID", subscribed)
        await followed.until_newest(missed)

    assert followed.follower.tally.reconnects >= 1


async def test_nothing_is_read_before_the_subscription_is_confirmed(
    mortal: Redis, merchant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to the channel there is none, and the log says which right is missing."""
    url = user(mortal, "hosted", *UNTRACKED, "resetchannels")
    mortal.cli("CONFIG", "RESETSTAT")
    followed = Followed(url, 5 * SECOND)
    followed.follower.watch(merchant)
    running = asyncio.create_task(followed.run())
    server = Server(mortal.url)
    await until(lambda: server.calls("hello") >= 6, "several attempts to connect")
    running.cancel()
    await asyncio.wait([running])

    assert server.calls("xrevrange") == server.calls("xrange") == 0
    (told,) = [each for each in caplog.messages if each.startswith("tail interrupted")]
    assert re.search("cause=NOPERM .*tracking.*; SUBSCRIBE: NOPERM .*channels", told)


async def test_a_user_who_may_not_publish_is_named(own_redis: Server) -> None:
    with pytest.raises(Unsuited, match="bell = pubsub; PUBLISH: NOPERM"):
        await announcing(user(own_redis, "mute", *UNTRACKED, "-publish"), "pubsub").open()


async def test_a_subscription_at_another_server_is_refused(
    own_redis: Server, mortal: Redis
) -> None:
    async with led(own_redis.url) as proxy:
        reads = announcing(proxy.url, "pubsub")
        open_reading = reads._open_reading

        async def open_and_move(*, tracks: bool) -> object:
            opened = await open_reading(tracks=tracks)
            proxy.lead_to(mortal.url)
            return opened

        reads._open_reading = open_and_move  # type: ignore[assignment,method-assign]  # a hook
        with pytest.raises(Unsuited, match="expected one server behind the address"):
            await reads.open()


def busy(data: bytes) -> bytes:
    return re.sub(rb"-NOPERM [^\r]*tracking[^\r]*", b"-BUSY a script runs", data)


@pytest.mark.parametrize(
    ("choice", "change", "error"),
    [("tracking", bytes, TrackingRefused), ("auto", busy, Unsuited)],
)
async def test_messages_take_the_place_of_tracking_only_if_it_is_refused_for_good(
    own_redis: Server,
    choice: BellChoice,
    change: Callable[[bytes], bytes],
    error: type[Exception],
) -> None:
    async with proxied(user(own_redis, "hosted"), change) as proxy:
        url = proxy.replace("redis://", "redis://hosted:secret@")
        reads = announcing(url, choice)
        with pytest.raises(error) as raised:
            await reads.open()

    assert raised.type is error
    assert reads.kind == "tracking"


async def test_tracking_takes_its_place_again_when_it_is_allowed(
    own_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reads = announcing(user(own_redis, "hosted"))
    for rights in (UNTRACKED, UNTRACKED, (*UNTRACKED, "+client|tracking")):
        user(own_redis, "hosted", *rights)
        opened = await reads.open()
        opened.close()

    assert reads.kind == "tracking"
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(FELL_BACK)
    assert caplog.messages[1] == "redis allows tracking again"


async def test_an_end_of_the_subscription_is_no_silence(own_redis: Server) -> None:
    reads = announcing(own_redis.url, "pubsub")
    opened = await reads.open()
    assert opened.subscribed is not None
    await opened.subscribed.send([("UNSUBSCRIBE",)])
    with pytest.raises(RedisConnectionError, match="expected a message, got b'unsubscribe'"):
        await reads.hear(opened.subscribed, lambda _names: None)
    await opened.subscribed.send([("PING",)])
    with pytest.raises(RedisConnectionError, match="expected a message of a channel"):
        await reads.hear(opened.subscribed, lambda _names: None)
    opened.close()


async def test_a_flood_of_messages_leaves_other_tasks_their_turn(own_redis: Server) -> None:
    reads = announcing(own_redis.url, "pubsub")
    opened = await reads.open()
    heard: list[object] = []
    flood = "".join(f'PUBLISH {KEYS.bell} "- 0 {number}"\n' for number in range(600))
    own_redis.cli(script=flood)
    hearing = asyncio.create_task(reads.hear(opened.subscribed, heard.append))
    await until(lambda: len(heard) > 600, "all of them")
    hearing.cancel()
    await asyncio.wait([hearing])
    opened.close()

    assert heard[-1] == ("599",)


async def test_an_appender_adds_though_it_may_not_publish(own_redis: Server, merchant: str) -> None:
    """Redis announces by itself there, and its log of refusals has one per probe."""
    url = user(own_redis, "mute", *UNTRACKED, "+client|tracking", "-publish")
    own_redis.cli("CONFIG", "RESETSTAT")
    async with following(url) as followed:
        await until_proved(followed)
        await followed.watch(merchant)
        added = [await followed.appender.append(Notification(merchant)) for _ in range(50)]
        await followed.until_newest(added[-1].entry_id)
        refused = followed.appender._ringer._is_refused

    assert refused
    assert own_redis.calls("publish") == 0


async def test_an_entry_is_added_before_its_message_and_stays_accepted_without_it(
    own_redis: Server, merchant: str
) -> None:
    """The reply to PUBLISH, the number of its receivers, is the last one, and never arrives."""
    replies = bytearray()

    def without_the_last(data: bytes) -> bytes:
        replies.extend(data)
        return data.removesuffix(b":0\r\n")

    async with proxied(own_redis.url, without_the_last) as url:
        appender = Followed(url, SECOND).appender
        appending = asyncio.create_task(appender.run())
        added = (await appender.append(Notification(merchant))).entry_id
        await stopped(appending)

    entry = str(added).encode()
    assert replies.endswith(b"$%d\r\n%s\r\n:1\r\n:0\r\n" % (len(entry), entry))


async def test_a_key_that_redis_does_not_track_is_not_to_be_forgotten(
    own_redis: Server, merchant: str
) -> None:
    async with following(own_redis.url, bell="pubsub", sweep_s=NO_SWEEP_S) as followed:
        await followed.watch(merchant)
        followed.follower.unwatch(merchant)

        assert not followed.follower._leftovers._merchants


async def test_a_process_that_tracks_by_setting_rings_nobody(mortal: Redis, merchant: str) -> None:
    async with following(mortal.url, bell="tracking") as followed:
        await until_proved(followed)
        await followed.appender.append(Notification(merchant))

    assert Server(mortal.url).calls("publish") == 0
