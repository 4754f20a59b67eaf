"""Tens of thousands of notifications, to browsers that read and to some that do not."""

from __future__ import annotations

from tests.faults.world import Fault, World
from tests.harness.processes import resident_kib

FAULT = Fault(
    number="E-2",
    title="tens of thousands of notifications while some browsers sleep",
    recovery_s=8,
    # The kernel's own limit counts for a reader with no room as well, so that is out of reach too.
    settings={"stream_max_entries": 100, "send_timeout_s": 300, "tcp_user_timeout_ms": 600_000},
    may_cut=False,
)

ROUNDS = {"short": 800, "full": 3_000, "long": 10_000}
TOPICS = [f"{'x' * 60}{number:04}" for number in range(30)]
"""As many as wait one by one, with the longest names: an event of some kilobytes."""


class Setting(World):
    """A quarter of the browsers is connected directly, with little room in their kernels."""

    def equip(self) -> None:
        for browser in self.part(4):
            browser.receive_buffer_bytes = 4096
            browser.address = lambda: ("127.0.0.1", self.service.port)


async def inject(world: World) -> None:
    await world.hush()
    await world.lasts(5, least_s=1.5)  # the gauges are a second old
    sleepers = world.part(4)
    for browser in sleepers:
        browser.pause()
    rounds = ROUNDS[world.size]
    resident: list[list[int]] = []
    tasks: list[float] = []
    for number in range(rounds):
        await world.backend.tell_many(world.merchants[number % len(world.merchants)], TOPICS)
        if number in (rounds // 4, rounds - 1):
            resident.append([resident_kib(pid) for pid in world.workers])
            tasks.append(await world.metric("sse_push_event_loop_tasks"))
    grown = max(last - first for first, last in zip(*resident, strict=True))
    # A sleeper has one task that waits until it takes bytes again.
    if grown > 4096 or tasks[1] > tasks[0] + len(sleepers) + 10:
        world.wrong(f"KiB of the workers {resident}, tasks {tasks}, after a quarter and after all")
    skipped = await world.metric("sse_push_refreshes_skipped_total")
    if not skipped:
        world.wrong("expected refreshes to wait for the sleepers, got none")
    for browser in sleepers:
        browser.resume()
    world.over()
    took_s = await world.until(lambda: not world.behind(), "the sleepers to be current", 5)
    world.note(
        f"{rounds * len(TOPICS)} notifications; {skipped:g} refreshes waited in a slot; "
        f"sleepers current {took_s:.1f} s after waking; a worker grew by {grown} KiB at most"
    )
