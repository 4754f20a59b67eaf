"""The rights at Redis that the documentation gives the service: enough, and not too many."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from sse_push.errors import StreamUnavailable
from sse_push.notification import EntryId, Notification
from tests.harness.documents import text
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import SECOND
from tests.integration.stream.following import Followed, stopped

OPERATIONS = text("sse_push/docs/operations.md")
LINE, OF_BELL = [line for line in OPERATIONS.splitlines() if line.startswith("ACL SETUSER ")]
RIGHTS = re.findall(r"\+\S+", LINE)
UNTRACKED = LINE.replace(" +client|tracking", "")
BELL_RIGHTS = OF_BELL.split()[3:]
NEEDED_NOT_TO_WORK_BUT = {
    "+time": "to know the age of an entry when the two clocks differ, and which revocation is old",
    "+expire": "to give streams an end",
    "+eval": "to plant an entry only where none is",
    "+xlen": "the same",
    "+ttl": "to keep a planted entry alive",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Redis]:
    """A Redis with users of its own."""
    server = Redis.start(tmp_path_factory.mktemp("guarded"))
    yield server
    server.stop()


def url_of(redis: Redis, name: str, line: str) -> str:
    """Make a user with these rights, and return the URL with its name."""
    words = line.split()[2:]
    words = [name, *words[1:]]
    redis.cli("ACL", "SETUSER", *(f">{name}" if word.startswith(">") else word for word in words))
    return f"redis://{name}:{name}@127.0.0.1:{redis.port}/0"


@pytest.mark.parametrize(
    ("prefix", "line"),
    [
        ("sse_push", LINE),
        ("shop", LINE),
        ("sse_push", f"{UNTRACKED} {' '.join(BELL_RIGHTS)}"),
        ("shop", f"{UNTRACKED} {' '.join(BELL_RIGHTS)}"),
    ],
    ids=["tracking", "tracking, prefix", "bell", "bell, prefix"],
)
async def test_the_service_runs_with_exactly_these_rights(
    guarded: Redis, tmp_path: Path, prefix: str, line: str
) -> None:
    """With another prefix it can't reach a key, or a channel, of the default one."""
    of_prefix = line.replace("~sse_push:*", f"~{prefix}:*").replace("&sse_push:", f"&{prefix}:")
    service = Service.start(
        tmp_path,
        url_of(guarded, f"only_{prefix}{len(line)}", of_prefix),
        key_prefix=prefix,
        probe_interval_s=0.2,
        probe_deadline_s=2 * SECOND,
    )
    publisher = Publisher(service.url)
    try:
        async with open_stream(service.url) as stream:
            await stream.next("refresh")
            entry_id = await publisher.notify("42")
            refresh = await stream.next("refresh", 2)
            revoked = await publisher.client.post("/revoke", json={"merchant_id": "42"})
            await stream.next("goodbye")
        revocations_live_s = int(guarded.cli("TTL", f"{prefix}:revocations"))
        lifetime_s = int(guarded.cli("TTL", f"{prefix}:{{42}}"))
    finally:
        await publisher.close()
        status = service.stop()

    assert refresh.id == entry_id
    assert lifetime_s > 0
    assert revoked.status_code == 200
    assert revocations_live_s > 0
    assert status == 0
    service.assert_no_errors()
    warned = [each for each in service.log.splitlines() if "level=warning" in each]
    assert len(warned) == (line != LINE), warned
    assert all("redis refuses tracking, changes are heard by PUBLISH" in each for each in warned)


async def is_so(is_there: Callable[[], bool], seconds: float) -> bool:
    """Return whether something comes within these seconds, which are never stretched."""
    give_up_at = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(0.01)
    return True


async def hears(followed: Followed, merchant: str, seconds: float) -> bool:
    """Return whether the stream is armed, a probe passes, and two changes are heard in turn."""
    changes = followed.changes
    followed.follower.watch(merchant)
    if not await is_so(lambda: merchant in followed.newest, seconds):
        return False
    if not await is_so(lambda: followed.follower.age_s < SECOND, seconds):
        return False
    added: list[EntryId] = []
    for topic in ("a", "b"):
        try:
            event_id = await followed.appender.append(Notification(merchant, topic))
        except StreamUnavailable:
            return False
        added.append(event_id.entry_id)
        if not await is_so(lambda: [each.newest for each in changes] == added, seconds):
            return False
    return not changes[1].is_resync


async def test_a_user_without_any_of_these_rights_fails(guarded: Redis, merchant: str) -> None:
    lines = {each: LINE for each in RIGHTS if each not in NEEDED_NOT_TO_WORK_BUT}
    lines |= dict.fromkeys(BELL_RIGHTS, f"{UNTRACKED} {' '.join(BELL_RIGHTS)}")
    followed: dict[str, Followed] = {}
    for number, (right, line) in enumerate({**lines, "none": LINE}.items()):
        rights = " ".join(word for word in line.split() if word != right)
        url = url_of(guarded, f"without{number}", rights)
        followed[right] = Followed(url, probe_deadline_s=0.5 * SECOND)
    tasks = [asyncio.create_task(each.run()) for each in followed.values()]
    try:
        results = await asyncio.gather(
            *(
                hears(each, f"{merchant}-{number}", SECOND if right in lines else 20 * SECOND)
                for number, (right, each) in enumerate(followed.items())
            )
        )
    finally:
        for task in tasks:
            await stopped(task)

    assert dict(zip(followed, results, strict=True)) == {
        **dict.fromkeys(lines, False),
        "none": True,
    }


async def test_to_wait_for_replicas_takes_a_right_of_its_own(guarded: Redis, merchant: str) -> None:
    """Without it nothing is lost, and no answer is 200."""
    for line, said in ((LINE, "NOPERM"), (f"{LINE} +wait", "replica.* in time, got 0")):
        url = url_of(guarded, f"waits{len(line)}", line)
        followed = Followed(url, probe_deadline_s=0.5 * SECOND, wait_replicas=1)
        task = asyncio.create_task(followed.run())
        try:
            with pytest.raises(StreamUnavailable, match=said) as refused:
                await followed.appender.append(Notification(merchant))
        finally:
            await stopped(task)
        assert refused.value.outcome == "unknown"

    assert guarded.cli("XLEN", f"sse_push:{{{merchant}}}") == "2"


def test_the_rights_reach_no_other_key(guarded: Redis) -> None:
    url_of(guarded, "narrow", LINE)

    refused = guarded.cli("ACL", "DRYRUN", "narrow", "GET", "another:key")

    assert "no permissions" in refused
