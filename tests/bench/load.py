"""Browsers and backends for a bench: many connections, few instructions each.

Runs as a program of its own, pinned beside the server: ``python -m tests.bench.load`` reads one
JSON object, which case and how, and prints another. A browser here is a protocol that counts;
nothing is parsed that is not measured. Each result carries the CPU share of this process, so that
a run whose load generator was the bottleneck shows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

from tests.bench.processes import Pids, cpu_s, pss_kib

Result = dict[str, Any]
DEADLINE_S = 120.0
_CALM_S = 0.2
"""How long a server is watched; it is calm if it uses less than a tenth of that."""


@dataclass(frozen=True)
class Dialect:
    """The protocol of a server: its paths, and the form of an event."""

    subscribe: str
    publish: str
    is_json: bool
    marker: bytes
    """The text before the part that distinguishes two events: an ID, or the data."""

    def get(self, channel: str, last_event_id: str = "") -> bytes:
        seen = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        path = self.subscribe.format(channel)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        return f"{head}{seen}\r\n".encode()

    def post(self, channel: str, text: str, *, times: int = 1) -> bytes:
        path = self.publish.format(channel)
        if self.is_json:
            one = {"merchant_id": channel}
            body = json.dumps(one if times == 1 else [one] * times)
        else:
            body = text
        kind = "application/json" if self.is_json else "text/plain"
        return (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


OURS = Dialect("/events?merchant_id={}", "/notify", is_json=True, marker=b"\nid: ")
NCHAN = Dialect("/sub/{}", "/pub/{}", is_json=False, marker=b"\ndata: ")
DIALECTS = {"ours": OURS, "nchan": NCHAN}


class Tally:
    """Counts of all browsers of a run."""

    def __init__(self) -> None:
        self.open = 0
        self.lost = 0
        self.events = 0
        self.heartbeats = 0
        self.bytes = 0
        self.last_at = 0.0
        self.half_after = 0
        self.half_at = 0.0


class Browser(asyncio.Protocol):
    """One event stream: the count of its events, and the newest one."""

    __slots__ = (
        "events",
        "first_at",
        "last",
        "marker",
        "request",
        "tally",
        "transport",
        "waiters",
    )

    def __init__(self, tally: Tally, request: bytes, marker: bytes) -> None:
        self.tally = tally
        self.request = request
        self.marker = marker
        self.events = 0
        self.last = b""
        self.first_at = 0.0
        self.transport: Any = None
        self.waiters: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.tally.bytes += len(data)
        if not self.first_at:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return
            if b" 200 " not in data[:20]:
                self.tally.lost += 1
            self.first_at = now
            self.tally.open += 1
            data = data[head:]
        found = data.rfind(self.marker)
        if found < 0:
            self.tally.heartbeats += data.count(b"event: heartbeat\n")
        else:
            self.events += data.count(self.marker)
            start = found + len(self.marker)
            self.last = data[start : data.find(b"\n", start)]
            tally = self.tally
            tally.events += 1
            tally.last_at = now
            if tally.events == tally.half_after:
                tally.half_at = now
            if self.waiters:
                waiters, self.waiters = self.waiters, []
                for waiter in waiters:
                    waiter.set_result(None)

    async def hears(self, newest: bytes, *, is_json: bool) -> None:
        """Wait for an event, or for one that is newer."""
        while self.last != newest and not is_after(self.last, newest, is_json=is_json):
            heard = asyncio.get_running_loop().create_future()
            self.waiters.append(heard)
            await heard

    def connection_lost(self, _exc: Exception | None) -> None:
        self.tally.lost += 1


class Backend(asyncio.Protocol):
    """One kept-alive connection that posts, and waits for each answer."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.answer: asyncio.Future[bytes] | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) >= size and self.answer is not None:
            self.buffer = body[size:]
            if b" 20" not in head[:13]:
                self.answer.set_exception(RuntimeError(f"answered {head[:40]!r} {body[:200]!r}"))
            else:
                self.answer.set_result(body[:size])
            self.answer = None

    async def post(self, request: bytes) -> bytes:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


@dataclass
class Bench:
    """One case's connections to one server."""

    port: int
    dialect: Dialect
    backends_port: int
    """Where notifications go: the port of the browsers, unless a proxy is before that one only."""
    tally: Tally = field(default_factory=Tally)
    browsers: list[Browser] = field(default_factory=list)

    async def connect(
        self, channels: list[str], *, at_once: int = 100, ids: list[str] | None = None
    ) -> float:
        """Open a browser per channel; return the seconds until all have their first bytes."""
        began = time.perf_counter()
        gate = asyncio.Semaphore(at_once)

        async def open_one(channel: str, last_event_id: str) -> None:
            request = self.dialect.get(channel, last_event_id)
            async with gate:
                _, browser = await asyncio.get_running_loop().create_connection(
                    lambda: Browser(self.tally, request, self.dialect.marker),
                    "127.0.0.1",
                    self.port,
                )
            self.browsers.append(browser)

        seen = ids or [""] * len(channels)
        await asyncio.gather(*map(open_one, channels, seen))
        await until(lambda: self.tally.open >= len(channels), "all first bytes")
        return time.perf_counter() - began

    async def leave(self, pid: Pids) -> None:
        """Close all browsers; wait until the server has forgotten them, and uses no CPU."""
        for browser in self.browsers:
            browser.transport.abort()
        self.browsers.clear()
        self.tally.open = 0
        used, before = cpu_s(pid), -1.0
        while used - before > _CALM_S / 10:
            await asyncio.sleep(_CALM_S)
            used, before = cpu_s(pid), used
        self.tally.lost = 0

    async def backend(self) -> Backend:
        _, backend = await asyncio.get_running_loop().create_connection(
            Backend, "127.0.0.1", self.backends_port
        )
        return backend

    async def all_have(self, last: bytes, browsers: list[Browser] | None = None) -> None:
        waiting = list(self.browsers if browsers is None else browsers)

        def is_done() -> bool:
            while waiting and waiting[-1].last == last:
                waiting.pop()
            return not waiting

        await until(is_done, f"all browsers at {last!r}")

    def newest(self, answer: bytes, text: str) -> bytes:
        if not self.dialect.is_json:
            return text.encode()
        value = json.loads(answer)
        newest: str = (value[-1] if isinstance(value, list) else value)["id"]
        return newest.encode()


async def until(is_done: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + DEADLINE_S
    while not is_done():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"expected {what} within {DEADLINE_S} s")
        await asyncio.sleep(0.001)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# -- cases


async def fan_out(bench: Bench, *, pid: Pids, browsers: int, times: int, pause_s: float) -> Result:
    """One merchant, one notification at a time."""
    await bench.connect(["hot"] * browsers)
    backend = await bench.backend()
    await bench.all_have(
        bench.newest(await backend.post(bench.dialect.post("hot", "warm")), "warm")
    )
    halves, lasts = [], []
    used, received = -cpu_s(pid), -bench.tally.bytes
    for number in range(times):
        await asyncio.sleep(pause_s)
        bench.tally.half_after = bench.tally.events + browsers // 2
        began = time.perf_counter()
        text = f"n{number}"
        answer = await backend.post(bench.dialect.post("hot", text))
        await bench.all_have(bench.newest(answer, text))
        lasts.append((bench.tally.last_at - began) * 1000)
        halves.append((bench.tally.half_at - began) * 1000)
    used += cpu_s(pid)
    received += bench.tally.bytes
    return {
        "us_per_delivery": used / times / browsers * 1e6,
        "bytes_per_delivery": received / times / browsers,
        "ms_to_median": percentile(halves, 0.5),
        "ms_to_last": percentile(lasts, 0.5),
    }


async def burst(bench: Bench, *, pid: Pids, browsers: int, posts: int, at_once: int) -> Result:
    """One merchant, notifications as fast as the server accepts them."""
    await bench.connect(["hot"] * browsers)
    backends = [await bench.backend() for _ in range(at_once)]
    numbers = iter(range(posts))
    answers: list[tuple[bytes, str]] = []
    before = sum(browser.events for browser in bench.browsers)
    used = -cpu_s(pid)
    began = time.perf_counter()

    async def work(backend: Backend) -> None:
        for number in numbers:
            text = f"{number:06}"
            answers.append((await backend.post(bench.dialect.post("hot", text)), text))

    await asyncio.gather(*map(work, backends))
    posted_s = time.perf_counter() - began
    if bench.dialect.is_json:
        newest = max((bench.newest(body, "") for body, _ in answers), key=numbers_of)
        await bench.all_have(newest)
    else:
        await until(
            lambda: sum(browser.events for browser in bench.browsers) - before >= posts * browsers,
            "every event",
        )
    used += cpu_s(pid)
    events = sum(browser.events for browser in bench.browsers) - before
    return {
        "s_all_current": bench.tally.last_at - began,
        "events_per_browser": events / browsers,
        "posts_per_s": posts / posted_s,
        "cpu_s": used,
    }


async def steady(bench: Bench, *, pid: Pids, browsers: int, per_s: float, seconds: float) -> Result:
    """One merchant, notifications at a steady rate: from each 200 to the last browser."""
    await bench.connect(["hot"] * browsers)
    backend = await bench.backend()
    accepted: list[tuple[bytes, float]] = []
    waits: list[float] = []
    used = -cpu_s(pid)
    began = time.perf_counter()
    pending = 0

    async def watch(newest: bytes, at: float) -> None:
        nonlocal pending
        key = numbers_of(newest)
        waiting = list(bench.browsers)

        def is_done() -> bool:
            while waiting and waiting[-1].last:
                if numbers_of(waiting[-1].last) < key:
                    return False
                waiting.pop()
            return not waiting

        await until(is_done, "the last browser")
        waits.append((time.perf_counter() - at) * 1000)
        pending -= 1

    tasks = []
    for number in range(int(per_s * seconds)):
        due = began + number / per_s
        await asyncio.sleep(max(0, due - time.perf_counter()))
        answer = await backend.post(bench.dialect.post("hot", ""))
        accepted.append((bench.newest(answer, ""), time.perf_counter()))
        tasks.append(asyncio.ensure_future(watch(*accepted[-1])))
    await asyncio.gather(*tasks)
    used += cpu_s(pid)
    return {
        "ms_p50": percentile(waits, 0.5),
        "ms_p99": percentile(waits, 0.99),
        "cpu_share": used / (time.perf_counter() - began),
    }


async def many_merchants(
    bench: Bench,
    *,
    pid: Pids,
    redis_pids: list[int],
    merchants: int,
    per_s: float,
    seconds: float,
    is_heard: bool = True,
) -> Result:
    """A browser per merchant, or none; notifications at random at a rate that does not wait."""
    channels = [f"m{number}" for number in range(merchants)]
    await bench.connect(channels if is_heard else [])
    by_channel = {browser.request: browser for browser in bench.browsers}
    chance = random.Random(1)
    backends: asyncio.Queue[Backend] = asyncio.Queue()
    for _ in range(64):
        backends.put_nowait(await bench.backend())
    waits: list[float] = []
    used, redis_used = -cpu_s(pid), -sum(map(cpu_s, redis_pids))
    began = time.perf_counter()

    async def tell(channel: str, due: float, number: int) -> None:
        backend = await backends.get()
        text = f"x{number}"
        answer = await backend.post(bench.dialect.post(channel, text))
        backends.put_nowait(backend)
        newest = bench.newest(answer, text)
        if is_heard:
            browser = by_channel[bench.dialect.get(channel)]
            await browser.hears(newest, is_json=bench.dialect.is_json)
        waits.append((time.perf_counter() - due) * 1000)

    tasks = []
    total = int(per_s * seconds)
    for number in range(total):
        due = began + number / per_s
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.ensure_future(tell(chance.choice(channels), due, number)))
    await asyncio.gather(*tasks)
    used += cpu_s(pid)
    redis_used += sum(map(cpu_s, redis_pids))
    return {
        "ms_p50": percentile(waits, 0.5),
        "ms_p99": percentile(waits, 0.99),
        "us_per_notification": used / total * 1e6,
        "redis_us_per_notification": redis_used / total * 1e6,
    }


def is_after(last: bytes, newest: bytes, *, is_json: bool) -> bool:
    if not last:
        return False
    if not is_json:  # n17
        return last[:1] == newest[:1] and int(last[1:]) >= int(newest[1:])
    return numbers_of(last) >= numbers_of(newest)


def numbers_of(event_id: bytes) -> tuple[int, ...]:
    """Return the two numbers of an ID, which may name the history that it is of."""
    return tuple(map(int, event_id.partition(b".")[0].split(b"-")))


async def idle(
    bench: Bench, *, pid: Pids, browsers: int, seconds: float, settle_s: float = 2
) -> Result:
    """Browsers that get heartbeats only: their cost in memory and CPU."""
    before = pss_kib(pid)
    await bench.connect([f"idle{number % 100}" for number in range(browsers)])
    await asyncio.sleep(settle_s)
    after = pss_kib(pid)
    tally = bench.tally
    used, received, heartbeats = -cpu_s(pid), -tally.bytes, -tally.heartbeats
    await asyncio.sleep(seconds)
    used += cpu_s(pid)
    heartbeats = max(1, heartbeats + tally.heartbeats)
    return {
        "kib_per_browser": (after - before) / browsers,
        "cpu_share": used / seconds,
        "us_per_heartbeat": used / heartbeats * 1e6,
        "bytes_per_heartbeat": (received + tally.bytes) / heartbeats,
        "kib_alone": before,
    }


async def connect_storm(bench: Bench, *, pid: Pids, browsers: int, is_first: bool = True) -> Result:
    """All browsers at once: at a server that has just started, or once they have been there."""
    channels = [f"c{number % 100}" for number in range(browsers)]
    if not is_first:
        await bench.connect(channels)
        await bench.leave(pid)
    used, received = -cpu_s(pid), -bench.tally.bytes
    began = time.perf_counter()
    seconds = await bench.connect(channels, at_once=browsers)
    used += cpu_s(pid)
    return {
        "connections_per_s": browsers / seconds,
        "s_longest_wait": max(browser.first_at for browser in bench.browsers) - began,
        "us_per_connection": used / browsers * 1e6,
        "bytes_per_connection": (received + bench.tally.bytes) / browsers,
    }


async def prepare_return(bench: Bench, *, pid: Pids, browsers: int) -> Result:
    """Two notifications for each merchant: the IDs to come back with, and those to end at."""
    backend = await bench.backend()
    ids: list[list[str]] = []
    for _ in range(2):
        found: list[str] = []
        for start in range(0, browsers, 500):
            body = json.dumps(
                [{"merchant_id": f"r{number}"} for number in range(start, start + 500)]
            )
            request = (
                f"POST /notify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
            found += [each["id"] for each in json.loads(await backend.post(request))]
        ids.append(found)
    return {"ids": ids}


async def return_storm(bench: Bench, *, pid: Pids, browsers: int, ids: list[list[str]]) -> Result:
    """One browser per merchant, each with a last event ID; half of them have missed an event."""
    older, newest = ids
    seen = [newest[number] if number % 2 else older[number] for number in range(browsers)]
    began = time.perf_counter()
    channels = [f"r{number}" for number in range(browsers)]
    await bench.connect(channels, at_once=browsers, ids=seen)
    by_request = {browser.request: browser for browser in bench.browsers}
    # A browser that missed nothing is current at once; the others need their refresh.
    wanted = [
        (by_request[bench.dialect.get(channel, last)], new.encode())
        for channel, last, new in zip(channels, seen, newest, strict=True)
        if last != new
    ]
    await until(lambda: all(browser.last == last for browser, last in wanted), "all right")
    return {"s_all_right": time.perf_counter() - began}


async def notify(
    bench: Bench, *, pid: Pids, publishers: int, seconds: float, times: int, merchants: int
) -> Result:
    """Publishers only: how many notifications the server accepts."""
    backends = [await bench.backend() for _ in range(publishers)]
    count = 0
    waits: list[float] = []
    used = -cpu_s(pid)
    began = time.perf_counter()
    chance = random.Random(2)

    async def work(backend: Backend) -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            request = bench.dialect.post(f"p{chance.randrange(merchants)}", "", times=times)
            at = time.perf_counter()
            await backend.post(request)
            waits.append((time.perf_counter() - at) * 1000)
            count += times

    await asyncio.gather(*map(work, backends))
    took = time.perf_counter() - began
    used += cpu_s(pid)
    return {
        "per_s": count / took,
        "ms_p50": percentile(waits, 0.5),
        "ms_p99": percentile(waits, 0.99),
        "us_per_notification": used / count * 1e6,
        "count": count,
    }


async def sleeper(bench: Bench, *, pid: Pids, posts: int) -> Result:
    """A reader that sleeps through many notifications: how many events wait for it then."""
    await bench.connect(["hot"])
    (browser,) = bench.browsers
    browser.transport.pause_reading()
    backend = await bench.backend()
    answer = b""
    before = browser.events
    for _ in range(posts):
        answer = await backend.post(bench.dialect.post("hot", ""))
        # One at a time and seen through, so that each would be an event of its own.
        await asyncio.sleep(0.001)
    browser.transport.resume_reading()
    await bench.all_have(bench.newest(answer, ""))
    return {"events_found": browser.events - before}


CASES: dict[str, Callable[..., Awaitable[Result]]] = {
    case.__name__: case
    for case in (
        fan_out,
        burst,
        steady,
        many_merchants,
        idle,
        connect_storm,
        prepare_return,
        return_storm,
        notify,
        sleeper,
    )
}


async def run(
    case: str, port: int, dialect: str, options: dict[str, Any], backends_port: int | None = None
) -> Result:
    bench = Bench(port, DIALECTS[dialect], backends_port or port)
    used, began = -time.process_time(), -time.perf_counter()
    result = await CASES[case](bench, **options)
    used += time.process_time()
    began += time.perf_counter()
    if bench.tally.lost:
        raise RuntimeError(f"{bench.tally.lost} streams were refused or lost")
    return {**result, "load_cpu_share": used / began}


if __name__ == "__main__":
    gc.disable()  # a run is short, and a pause here would be taken for one of the server's
    given = json.load(sys.stdin)
    sys.stdout.write(json.dumps(uvloop.run(run(**given))) + "\n")
