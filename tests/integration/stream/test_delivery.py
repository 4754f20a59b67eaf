"""Whether ``check`` says by what changes are heard, and what is missing for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from sse_push.notification import Notification
from sse_push.runtime.finding import Finding
from sse_push.stream import BellChoice, examine
from tests.harness.keys import KEYS
from tests.harness.redis import Redis
from tests.harness.waiting import SECOND
from tests.integration.stream.following import following
from tests.integration.stream.servers import Server, proxied

UNTRACKED = ("on", ">secret", "~*", "&*", "+@all", "-client|tracking")


async def found(redis: Redis, bell: BellChoice, *rights: str) -> list[Finding]:
    """Return the findings for a user with these rights, without those that are well."""
    redis.cli("ACL", "SETUSER", "push", "reset", *rights)
    url = redis.url.replace("redis://", "redis://push:secret@")
    findings = await examine(url, KEYS, timeout_s=SECOND, bell=bell)
    return [each for each in findings if each.name in ("delivery", "bell", "rights", "tracking")]


async def test_a_server_that_refuses_tracking_works_and_is_told_of(mortal: Redis) -> None:
    delivery, bell = await found(mortal, "auto", *UNTRACKED)

    assert (delivery.level, bell.level, bell.name) == ("ok", "warning", "bell")
    assert delivery.text.startswith("a change is heard by PUBLISH to sse_push:bell and read, ")
    assert bell.text.startswith("without CLIENT TRACKING workers hear of changes by PUBLISH to ss")
    assert "expected the right +client|tracking, or bell=pubsub; got: NOPERM" in bell.text


async def test_a_user_who_need_not_publish_and_may_not_is_told_what_counts_it(
    mortal: Redis,
) -> None:
    delivery, bell = await found(mortal, "auto", *UNTRACKED, "+client|tracking", "-publish")

    assert (delivery.level, bell.level, bell.name) == ("ok", "ok", "bell")
    assert bell.text.endswith(": grant +publish &sse_push:bell, or set bell=tracking")


async def test_a_server_without_client_works_by_messages(tmp_path: Path, merchant: str) -> None:
    redis = Redis.start(tmp_path, "--rename-command", "CLIENT", "")
    async with following(redis.url, sweep_s=3600) as followed:
        await followed.watch(merchant)
        added = await followed.appender.append(Notification(merchant))
        await followed.until_newest(added.entry_id)
    findings = await examine(redis.url, KEYS, timeout_s=SECOND)
    redis.stop()

    assert followed.follower.announcing.kind == "pubsub"
    (bell,) = [each for each in findings if each.name == "bell"]
    assert bell.text.endswith(
        "got: ERR unknown command 'CLIENT', with args beginning with: 'TRACKING' 'ON' "
    )
    assert not [each for each in findings if each.level == "failure"]


async def test_a_bell_that_is_set_is_no_warning(server: Server) -> None:
    _, delivery, *_ = await examine(server.url, KEYS, timeout_s=SECOND, bell="pubsub")

    assert (delivery.level, delivery.name) == ("ok", "delivery")
    assert delivery.text.startswith("a change is heard by PUBLISH to sse_push:bell and read, ")


@pytest.mark.parametrize(
    ("bell", "rights", "lacking"),
    [
        ("auto", ("resetchannels",), "+client|tracking &sse_push:bell"),
        ("auto", ("-publish",), "+client|tracking +publish"),
        ("pubsub", ("-publish", "-subscribe"), "+subscribe +publish"),
        ("pubsub", ("resetchannels",), "&sse_push:bell"),
        ("tracking", (), "+client|tracking"),
    ],
)
async def test_rights_that_the_bell_lacks_are_named_as_acl_setuser_takes_them(
    mortal: Redis, bell: BellChoice, rights: tuple[str, ...], lacking: str
) -> None:
    (refused,) = await found(mortal, bell, *UNTRACKED, *rights)

    assert (refused.level, refused.name) == ("failure", "rights")
    assert refused.text.endswith(f": ACL SETUSER push {lacking}")


async def test_a_message_that_does_not_arrive_is_a_failure(own_redis: Server) -> None:
    def without_messages(data: bytes) -> bytes:
        return data.replace(b"- 0 ~check", b"- 0 ~other")

    async with proxied(own_redis.url, without_messages) as url:
        _, delivery, *_ = await examine(url, KEYS, timeout_s=0.2 * SECOND, bell="pubsub")

    assert (delivery.level, delivery.name) == ("failure", "delivery")
    assert "SUBSCRIBE must reach the server itself" in delivery.text
