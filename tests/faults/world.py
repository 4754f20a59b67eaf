"""One fault's world: a Redis, the service with two workers, nginx as shipped, browsers, a backend.

And the judge: what must hold afterwards, whatever was broken. Each fault is a module of its own
with a ``FAULT`` and an ``inject(world)``; ``run`` here does the rest.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sse_push.notification import EntryId
from tests.faults.backends import Backend
from tests.faults.browsers import Address, Browser, Record
from tests.faults.second_judge import MERCHANTS, SecondJudge
from tests.harness import plain_http
from tests.harness.keys import stream_key
from tests.harness.nginx import Nginx, replace
from tests.harness.processes import open_fds
from tests.harness.redis import Redis
from tests.harness.service import Service, alarms
from tests.harness.waiting import SECOND, Deadline, is_late, stretched

SLACK_S = 3 * SECOND
"""What a busy machine may add to any promised time."""

_FD_SLACK = 40
"""Idle connections that nginx keeps to each worker, and the pools of the client libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a world is, and how long its times are; 1 is as in production."""

    browsers: int
    merchants: int
    rate_per_s: float
    time: float

    @property
    def time_here(self) -> float:
        """Return the factor of all times on this machine: a slow one gets more, at most 1."""
        return min(1.0, self.time * SECOND)


SCALES = {
    "short": Scale(browsers=60, merchants=6, rate_per_s=30, time=0.2),
    "full": Scale(browsers=300, merchants=30, rate_per_s=50, time=0.4),
    "long": Scale(browsers=2000, merchants=100, rate_per_s=50, time=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is broken, and what is promised to hold all the same."""

    number: str
    title: str
    recovery_s: float
    """How soon after the end of the fault every browser is current again; scaled like all times."""
    redis: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    module: tuple[str, ...] = ("sse_push", "serve")
    workers: int = 2
    loses_history: bool = False
    """Redis forgets accepted notifications; their IDs cannot be compared with later ones."""
    may_cut: bool = True
    """Connections may break; otherwise each stays open or its response is completed."""
    needs_sweep: bool = False
    """With ``bell=pubsub`` the sweep alone finds what this fault does."""
    may_be_silent: bool = False
    """Connections that stay open may carry nothing for longer than a heartbeat."""
    answer_slack_s: float = 1.0
    """How much later than its limit a notification may be answered; times the measured unit."""
    log: tuple[str, ...] = ()
    """Lines of level error or critical, or tracebacks, that belong to the fault: patterns."""


@dataclass
class Outcome:
    """One row of the matrix."""

    number: str
    title: str
    browsers: int = 0
    notifications: int = 0
    lost: int = 0
    """Browsers that were not current in the end."""
    checked: int = 0
    """Browsers of the checker, which shares no code with this judge."""
    checked_lost: int | None = None
    """Those of them that were not told of an accepted notification; None: not judged."""
    recovered_s: float | None = None
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    took_s: float = 0.0
    skipped: str | None = None
    """What is missing here, such as a program or a right."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class World:
    """What a fault may break, and how."""

    least_merchants = 0
    """At least so many merchants, where those of the scale would be fewer."""

    def __init__(self, fault: Fault, size: str, scale: Scale, folder: Path) -> None:
        self.fault = fault
        self.size = size
        self.scale = scale
        self.folder = folder
        self.record = Record()
        self.outcome = Outcome(fault.number, fault.title)
        merchants = max(scale.merchants, self.least_merchants)
        self.merchants = [f"m{number}" for number in range(merchants)]
        self.browsers: list[Browser] = []
        self.redis: Redis
        self.service: Service
        self.nginx: Nginx | None = None
        self.backend: Backend
        self.recovery: Deadline | None = None
        """When every browser has to be current again; None while the fault lasts."""
        folder.chmod(0o755)  # nginx's workers run under another account
        self.redis_url: str | None = None
        """The address of a proxy by which the service reaches Redis, if there is one."""
        self.entrance: Address | None = None
        """The address at which browsers connect, if it is not that of nginx."""
        self._publishing: asyncio.Task[None] | None = None
        self.lost_at = -1.0
        """When Redis forgot; every browser is owed a refresh since then."""
        self.losses: list[float] = []
        """Every time at which Redis forgot."""
        self.seed = 0
        """Decides what a fault draws at random."""
        self.second_judge: SecondJudge
        self._has_service = False
        self._baseline: dict[str, float] = {}
        self._baseline_tasks = 0.0

    # -- times

    def seconds(self, unscaled_s: float) -> float:
        """Return a duration of production in this world's time."""
        return unscaled_s * self.scale.time_here

    async def lasts(self, unscaled_s: float, least_s: float = 1.0) -> None:
        """Let a fault last: the only wait for a time, not for an event."""
        await asyncio.sleep(max(self.seconds(unscaled_s), least_s * SECOND))

    async def until(
        self, is_there: Callable[[], bool], what: str, unscaled_s: float, pause_s: float = 0.02
    ) -> float:
        """Wait for something to be so, and return how long it took."""
        deadline = Deadline(self.seconds(unscaled_s) + SLACK_S)
        while not is_there():
            assert not await deadline.is_missed(), f"expected {what} in {deadline.seconds:.1f} s"
            await asyncio.sleep(pause_s)
        return deadline.passed_s

    def note(self, text: str) -> None:
        """Add a figure to the row of the table."""
        self.outcome.notes.append(text)

    def over(self) -> None:
        """Mark the end of the fault: the time to recover is measured from now on."""
        self.recovery = Deadline(self.seconds(self.fault.recovery_s) + SLACK_S)

    # -- parts

    @property
    def settings(self) -> dict[str, object]:
        """The settings of the service: its times scaled, and the fault's own as they are."""
        times = {
            "heartbeat_s": 15,
            "send_timeout_s": 15,
            "probe_interval_s": 3,
            "probe_deadline_s": 6,
            "deaf_limit_s": 20,
            "drain_s": 20,
            "notify_timeout_s": 3,
        }
        scaled: dict[str, object] = {name: self.seconds(value) for name, value in times.items()}
        scaled["stream_max_entries"] = 1_000_000  # so that the ledger finds every entry
        scaled["retry_ms"] = round(self.seconds(2000))
        scaled["soft_retry_min_ms"] = round(self.seconds(5000))
        scaled["soft_retry_max_ms"] = round(self.seconds(30_000))
        scaled["tcp_user_timeout_ms"] = max(1000, round(self.seconds(30_000)))
        if self.fault.settings.get("bell") == "pubsub":
            # Nothing else finds what is deleted. It would find what is not heard, too.
            scaled["sweep_s"] = max(1.0, self.seconds(15)) if self.fault.needs_sweep else 3600
        return {**scaled, **self.fault.settings}

    @property
    def instances(self) -> list[Service]:
        """The instances of the service, each with its workers."""
        return [self.service]

    @property
    def primaries(self) -> Sequence[Redis]:
        """The servers that take notifications."""
        return [self.redis]

    @property
    def servers(self) -> Sequence[Redis]:
        """The servers that the service may be connected to."""
        return [self.redis]

    def home_of(self, merchant: str) -> Redis:  # noqa: ARG002 (one of many has another answer)
        """Return the server that has a merchant's stream."""
        return self.redis

    @property
    def workers(self) -> list[int]:
        """The process IDs of the service's workers, oldest first."""
        return [pid for each in self.instances for pid in each.workers]

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every part, open every browser, and take the measures of a world that is whole."""
        await self.enter(stack)
        self.redis = await asyncio.to_thread(self.start_redis)
        stack.callback(self._kill_redis)
        await self.prepare(stack)
        await self.start_service()
        stack.callback(self._kill_service)
        self.nginx = await asyncio.to_thread(self.start_nginx)
        stack.callback(self._stop_nginx)
        limit_s = float(str(self.settings["notify_timeout_s"]))
        self.backend = Backend(self.entry, self.merchants, limit_s)
        stack.push_async_callback(self.backend.hang_up)
        clock = asyncio.create_task(self.backend.watch_the_clock())
        stack.callback(clock.cancel)
        await self.before_browsers(stack)
        await self.warm_up()
        self._baseline = self.measures()
        self._baseline_tasks = await self.metric("sse_push_event_loop_tasks")
        self.browsers = [
            Browser(merchant, self.front, self.record)
            for _ in range(max(1, self.scale.browsers // len(self.merchants)))
            for merchant in self.merchants
        ]
        self.equip()
        stack.callback(self._close_browsers)
        await self.open(self.browsers)
        self.second_judge = await SecondJudge.start(self.front(), self.merchants[:MERCHANTS])
        stack.push_async_callback(self.second_judge.end)

    async def enter(self, stack: AsyncExitStack) -> None:
        """Make what must be there before Redis starts; nothing by default."""

    def equip(self) -> None:
        """Make some browsers or the backend special, before they are used; nothing by default."""

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Put between service and Redis what a fault needs there; nothing by default."""

    async def before_browsers(self, stack: AsyncExitStack) -> None:
        """Put between browsers and nginx what a fault needs there; nothing by default."""

    def start_redis(self) -> Redis:
        """Start this world's Redis."""
        return Redis.start(self.folder, *self.fault.redis)

    async def restart_redis(self) -> None:
        """Start Redis again where it was, with what it kept."""
        redis = self.redis
        self.redis = await asyncio.to_thread(
            Redis.start, redis.folder, *redis.arguments, port=redis.port, host=redis.host
        )

    @property
    def through(self) -> tuple[str, ...]:
        """The program that starts the service, if there is one."""
        return ()

    async def start_service(self) -> None:
        """Start the service, on the port that it had if it had one."""
        port = self.service.port if self._has_service else None
        self._has_service = True
        self.service = await asyncio.to_thread(
            Service.start,
            self.folder,
            self.redis_url or self.redis.url,
            "--workers",
            str(self.fault.workers),
            module=self.fault.module,
            port=port,
            through=self.through,
            settings=self.settings,
        )

    def start_nginx(self, port: int | None = None) -> Nginx:
        """Start nginx with the shipped files, its soft answer's times scaled like all others."""
        folder = self.folder / f"nginx-{time.monotonic_ns()}"
        return Nginx.start(folder, f"127.0.0.1:{self.service.port}", self._adapt, port)

    # The parts of the end, not those of the beginning: a fault may have put others in their place.

    def _kill_redis(self) -> None:
        self.redis.kill()

    def _kill_service(self) -> None:
        for each in self.instances:
            each.process.kill()
            each.process.wait()

    def _close_browsers(self) -> None:
        for browser in self.browsers:
            browser.close()

    def _stop_nginx(self) -> None:
        if self.nginx is not None and self.nginx.process.poll() is None:
            self.nginx.stop()

    def _adapt(self, folder: Path) -> None:
        site = folder / "conf.d/sse-push.conf"
        pattern = re.compile(r"^(\s+(?:7\.7%|\*)\s+)(\d+);$", re.MULTILINE)
        text, count = pattern.subn(
            lambda match: f"{match[1]}{round(self.seconds(int(match[2])))};", site.read_text()
        )
        assert count == 13, f"expected 13 reconnection times, got {count}"
        site.write_text(text)
        # All browsers come from one address.
        replace(folder, "limit_conn sse_push_address 200", "limit_conn sse_push_address 65535")
        replace(folder, "rate=50r/s", "rate=100000r/s")

    @property
    def entry(self) -> str:
        """Where the backend notifies."""
        return self.service.url

    def front(self) -> Address:
        """Return where browsers connect to."""
        if self.entrance is not None:
            return self.entrance
        return ("127.0.0.1", self.service.port if self.nginx is None else self.nginx.port)

    async def warm_up(self) -> None:
        """Open one stream and notify once, so that whatever is made at first use exists."""
        once = Browser("warm", self.front, Record())
        once.open()
        await self.until(lambda: once.refreshes > 0, "a first event", 5)
        await self.backend.tell_until_accepted("warm", 5)
        once.close()

    async def open(self, browsers: Sequence[Browser]) -> None:
        """Open browsers, and wait until each has been refreshed."""
        for number, browser in enumerate(browsers):
            browser.open()
            if number % 100 == 99:
                await asyncio.sleep(0)
        await self.until(
            lambda: all(browser.refreshes > 0 for browser in browsers), "every browser open", 30
        )

    def tails(self, name: str = "tail") -> list[str]:
        """Return the IDs, at Redis, of the connections for reads; ``bell``: the subscribed ones."""
        lines = self.redis.cli("CLIENT", "LIST").splitlines()
        return [
            line.split()[0].removeprefix("id=") for line in lines if f"name=sse_push-{name}" in line
        ]

    def is_ready(self) -> bool:
        """Return whether every instance says that it is ready."""
        return all(each.is_ready() for each in self.instances)

    def part(self, count: int) -> list[Browser]:
        """Return one of ``count`` equal parts of the browsers, some of each merchant."""
        return self.browsers[: len(self.browsers) // count]

    async def refreshed(self, unscaled_s: float, since: float) -> float:
        """Wait until every browser has been refreshed since then; return how long it took."""
        return await self.until(
            lambda: all(each.refreshed_at >= since for each in self.browsers if not each.is_away),
            "a refresh for every browser",
            unscaled_s,
        )

    # -- the backend

    def publish(self, rate_per_s: float | None = None) -> None:
        """Begin to notify at the scale's rate."""
        assert self._publishing is None, "once"
        rate = rate_per_s or self.scale.rate_per_s
        self._publishing = asyncio.create_task(self.backend.publish(rate))

    async def hush(self) -> None:
        """Stop notifying, and wait for the answers that are on their way."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])
            self._publishing = None
        await self.backend.answered()

    def history_lost(self) -> None:
        """Record that Redis has lost its data: from now on every browser is owed a refresh."""
        assert self.fault.loses_history, "said by the fault"
        self.backend.forget()
        self.lost_at = time.monotonic()
        self.losses.append(self.lost_at)

    # -- judging

    def behind(self) -> list[Browser]:
        """Return the browsers that do not know of the newest accepted notification."""
        newest = self.backend.ledger.newest
        return [
            browser
            for browser in self.browsers
            if not browser.is_current(newest.get(browser.merchant_id), self.lost_at)
        ]

    async def settle(self) -> None:
        """Wait until every browser is current; measure from the fault's end."""
        recovery = self.recovery
        assert recovery is not None, "inject says when it is over"
        markers = await asyncio.gather(
            *(self.backend.tell_until_accepted(each, recovery.seconds) for each in self.merchants)
        )
        marker = dict(zip(self.merchants, markers, strict=True))
        late = list(self.browsers)
        while late:
            await asyncio.sleep(0.01)
            late = [
                each for each in late if not each.is_current(marker[each.merchant_id], self.lost_at)
            ]
            if late and await recovery.is_missed():
                self.wrong(f"{len(late)} browsers not current after {recovery.seconds:.1f} s")
                break
        else:
            self.outcome.recovered_s = recovery.passed_s
        await self.hush()
        try:
            await self.until(lambda: not self.behind(), "every browser current", 0)
        except AssertionError:
            self.outcome.lost = len(self.behind())

    def wrong(self, text: str) -> None:
        """Record a violation."""
        self.outcome.wrong.append(text)

    def judge(self) -> None:
        """Check what must hold after any fault."""
        ledger, record, outcome = self.backend.ledger, self.record, self.outcome
        outcome.browsers = len(self.browsers)
        outcome.notifications = len(ledger.accepted)
        outcome.wrong += record.wrong[:5] + ledger.wrong[:5]
        limit_s = float(str(self.settings["notify_timeout_s"]))
        if is_late(ledger.slowest_s, limit_s + self.fault.answer_slack_s * SECOND):
            self.wrong(
                f"a notification was answered after {ledger.slowest_s:.1f} s, limit {limit_s:g}"
            )
        # A worker that stands still is replaced, but it is silent until then.
        heartbeat_s = float(str(self.settings["heartbeat_s"]))
        may_be_silent = self.fault.may_cut or self.fault.may_be_silent
        limit_s = heartbeat_s + SLACK_S / 2
        if not may_be_silent and is_late(record.longest_silence_s, limit_s):
            self.wrong(
                f"nothing was heard for {record.longest_silence_s:.1f} s, limit {heartbeat_s:g}"
            )
        if not self.fault.may_cut and record.ends["cut"] + record.ends["refused"]:
            self.wrong(f"connections were cut: {dict(record.ends)}")
        if record.ends:
            self.note(
                "ends: " + ", ".join(f"{n} {kind}" for kind, n in sorted(record.ends.items()))
            )
        unstored = {name: n for name, n in ledger.outcomes.items() if name != "stored"}
        if unstored:
            slowest = f", slowest answer {ledger.slowest_s:.2f} s"
            self.note(", ".join(f"{n} {name}" for name, n in unstored.items()) + slowest)
        if not self.losses and "stream_max_entries" not in self.fault.settings:
            self._compare_with_streams()

    async def judge_again(self) -> None:
        """Let the checker judge what its own browsers have heard."""
        settings, fault = self.settings, self.fault
        limit_s = float(str(settings["notify_timeout_s"]))
        terms = {
            "within_s": self.seconds(fault.recovery_s),
            "slack_s": SLACK_S,
            "healed_at": None if self.recovery is None else self.recovery.began_at,
            "losses": self.losses,
            "heartbeat_s": float(str(settings["heartbeat_s"])),
            "answer_s": limit_s + fault.answer_slack_s * SECOND,
            "may_cut": fault.may_cut,
            "may_be_silent": fault.may_cut or fault.may_be_silent,
        }
        await self.second_judge.tell(self.backend.ledger.history)
        verdict = await self.second_judge.judge(terms)
        if verdict["wrong"]:  # as every limit: longer if the machine has become slower
            slack_s = await asyncio.to_thread(stretched, SLACK_S)
            verdict = await self.second_judge.judge({**terms, "slack_s": slack_s})
        await self.second_judge.leave()
        self.outcome.checked = verdict["browsers"]
        self.outcome.checked_lost = verdict["lost"]
        self.outcome.wrong += [f"the checker: {text}" for text in verdict["wrong"]]

    def _compare_with_streams(self) -> None:
        """Compare the ledger with the streams: only Redis knows what was stored."""
        ledger = self.backend.ledger
        found: dict[str, list[EntryId]] = {}
        for merchant in self.merchants:
            for entry_id, fields in read_stream(self.home_of(merchant), merchant):
                by = fields.get("by")
                if by is not None:
                    found.setdefault(by, []).append(entry_id)
        missing = [
            by for by, (_, entry_id) in ledger.accepted.items() if found.get(by) != [entry_id]
        ]
        missing = [by for by in missing if ledger.accepted[by][0] in self.merchants]
        if missing:
            self.wrong(
                f"{len(missing)} accepted notifications are not in their stream exactly once"
            )
        if ghosts := ledger.refused & found.keys():
            self.wrong(f"{len(ghosts)} stored, though the answer was not_published")
        if twice := [by for by, ids in found.items() if len(ids) > 1]:
            self.wrong(f"{len(twice)} stored more than once")

    async def metric(self, name: str, **labels: str) -> float:
        """Scrape each instance, and return the sum of a series; 0 for one that is not there yet."""
        values = [await asyncio.to_thread(scraped, each, name, labels) for each in self.instances]
        return sum(values)

    @property
    def most_tasks(self) -> float:
        """How many tasks the workers may have once every browser has gone."""
        return self._baseline_tasks + 10

    async def is_back(self) -> bool:
        """Return whether the gauges are where they were before any browser came."""
        streams = await self.metric("sse_push_connections_open")
        merchants = await self.metric("sse_push_merchants_live")
        tasks = await self.metric("sse_push_event_loop_tasks")
        return streams == merchants == 0 and tasks <= self.most_tasks

    def measures(self) -> dict[str, float]:
        """Return what must be as before once every browser has gone."""
        return {f"fds of worker {n}": open_fds(pid) for n, pid in enumerate(self.workers, 1)}

    async def leave_and_compare(self) -> None:
        """Let every browser go, and wait until nothing is left of them."""
        self._close_browsers()
        await self.backend.hang_up()
        limit = max(self._baseline.values()) + _FD_SLACK
        each_has = self.fault.workers * len(self.instances)
        await self.until(
            lambda: all(each.connections("tail") == each_has for each in self.primaries),
            "one tracked connection for each worker",
            5,
        )
        deadline = Deadline(self.seconds(5) + SLACK_S)
        while not await self.is_back():
            assert not await deadline.is_missed(), "expected the gauges to be where they were"
        await self.until(
            lambda: all(open_fds(pid) <= limit for pid in self.workers),
            f"at most {limit:g} open files in each worker",
            5,
        )

    async def stop(self) -> None:
        """Stop the service as an operator does, and look for errors in its log."""
        for each in self.instances:
            status = await asyncio.to_thread(each.stop)
            if status != 0:
                self.wrong(f"the service ended with status {status}")
        await self.until(
            lambda: not any("name=sse_push-" in o.cli("CLIENT", "LIST") for o in self.servers),
            "no connection to Redis left",
            5,
        )
        for line in [line for each in self.instances for line in alarms(each.log)]:
            if not any(re.search(pattern, line) for pattern in self.fault.log):
                self.wrong(f"the log says: {line[:300]}")
                break


async def run(
    fault: Fault,
    inject: Callable[[World], Awaitable[None]],
    size: str,
    scale: Scale,
    folder: Path,
    make: type[World] = World,
    seed: int = 0,
) -> Outcome:
    """Build a world, break it, and judge what is left."""
    began_at = time.monotonic()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    world = make(fault, size, scale, folder)
    world.seed = seed
    try:
        async with AsyncExitStack() as stack:
            await world.start(stack)
            world.publish()
            await inject(world)
            await world.settle()
            world.judge()
            await world.judge_again()
            await world.leave_and_compare()
            await world.stop()
    except pytest.skip.Exception as exc:
        world.outcome.skipped = str(exc)
    except (AssertionError, OSError, KeyError, ValueError, pytest.fail.Exception) as exc:
        world.wrong(f"{type(exc).__name__}: {exc}")
        world.outcome.lost = world.outcome.lost or len(world.behind() if world.browsers else [])
    world.outcome.took_s = time.monotonic() - began_at
    return world.outcome


def scraped(service: Service, name: str, labels: Mapping[str, str]) -> float:
    """Scrape an instance, and return a series' value; 0 for one that is not there yet."""
    for family in text_string_to_metric_families(plain_http.get(f"{service.url}/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def busiest_second(times: Sequence[float]) -> int:
    """Return how many of these fall into one second, at most."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] > 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def read_stream(redis: Redis, merchant: str) -> list[tuple[EntryId, dict[str, str]]]:
    """Return all entries of a merchant's stream."""
    key = stream_key(merchant)
    if redis.cli("TYPE", key) != "stream":
        return []
    reply = json.loads(redis.cli("--json", "XRANGE", key, "-", "+") or "[]")
    return [
        (EntryId.parse(entry_id), dict(zip(fields[::2], fields[1::2], strict=True)))
        if isinstance(fields, list)
        else (EntryId.parse(entry_id), fields)
        for entry_id, fields in reply
    ]
