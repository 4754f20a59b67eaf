"""A quarter of the browsers stops reading; nobody else may notice, and nothing may grow."""

from __future__ import annotations

from tests.faults.world import Fault, Scale, World
from tests.harness.processes import resident_kib

FAULT = Fault(
    number="F-12",
    title="readers that stop reading",
    recovery_s=12,
    settings={"refresh_interval_ms": 10},
)

SCALES = {
    "short": Scale(browsers=120, merchants=6, rate_per_s=30, time=0.2),
    "full": Scale(browsers=800, merchants=40, rate_per_s=80, time=0.4),
    "long": Scale(browsers=800, merchants=40, rate_per_s=80, time=1),
}


class Setting(World):
    """A quarter of the browsers is connected directly, with little room in their kernels."""

    def equip(self) -> None:
        self.backend.data = "x" * 7000
        for browser in self.part(4):
            browser.receive_buffer_bytes = 4096
            browser.address = lambda: ("127.0.0.1", self.service.port)


async def inject(world: World) -> None:
    sleepers = world.part(4)
    others = [each for each in world.browsers if each not in sleepers]
    latencies: dict[str, float] = {}
    resident: list[int] = []
    for name, at_rest in (("before", []), ("with them", sleepers)):
        for browser in at_rest:
            browser.pause()
        for browser in others:
            browser.latencies_s = []
        resident = [resident_kib(pid) for pid in world.workers]
        await world.lasts(30, least_s=4)
        found = sorted(each for browser in others for each in browser.latencies_s or ())
        latencies[name] = found[int(len(found) * 0.99)] * 1000
    grown = [resident_kib(pid) - kib for pid, kib in zip(world.workers, resident, strict=True)]
    if max(grown) > 4096:
        world.wrong(f"the workers grew by {grown} KiB while {len(sleepers)} browsers slept")
    stalled = await world.metric("sse_push_connections_closed_total", reason="stalled")
    if stalled < len(sleepers):
        world.wrong(f"{stalled:g} streams were ended as stalled, of {len(sleepers)} that slept")
    for browser in sleepers:
        browser.resume()
    world.over()
    world.note(
        f"p99 of the others {latencies['before']:.0f} ms without and "
        f"{latencies['with them']:.0f} ms with {len(sleepers)} sleepers; "
        f"a worker grew by {max(grown)} KiB at most"
    )
