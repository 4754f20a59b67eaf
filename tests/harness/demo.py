"""``sse-push demo``: the service with a backend, its page and the module, on one port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.harness import plain_http
from tests.harness.programs import spawn, variables
from tests.harness.service import Service
from tests.harness.waiting import free_port


@dataclass
class Demo(Service):
    """A demo that runs, and its box office, where nobody has a window open."""

    @classmethod
    def start(  # type: ignore[override]  # a demo brings its own Redis, unless a flag names one
        cls,
        folder: Path,
        *arguments: str,
        port: int | None = None,
        cwd: Path | None = None,
        environ: dict[str, str] | None = None,
        **settings: object,
    ) -> Demo:
        """Start a demo and wait until it is ready."""
        port = port or free_port()
        command = ["demo", "--port", str(port), *arguments]
        given = {**variables(settings), **(environ or {})}
        demo = cls(*spawn(folder, f"demo-{port}", command, environ=given, cwd=cwd), port)
        try:
            demo.wait_ready()
        except BaseException:
            demo.kill()
            raise
        return demo

    def stop(self) -> int:
        """End the demo as an operator does; the end must be a clean one."""
        try:
            status = super().stop()
        finally:
            self.kill()
        assert status == 0, self.log
        self.assert_no_errors()
        return status

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def sell(self, seat: str, merchant_id: str = "roxy") -> None:
        body = {"merchant_id": merchant_id, "by": "the box office"}
        plain_http.post(f"{self.url}/seats/{seat}/sell", json=body).raise_for_status()

    def empty(self, merchant_id: str = "roxy") -> None:
        body = {"merchant_id": merchant_id, "by": "the box office"}
        plain_http.post(f"{self.url}/seats/reset", json=body).raise_for_status()

    def sold(self, merchant_id: str = "roxy") -> set[str]:
        house = plain_http.get(f"{self.url}/seats", params={"merchant_id": merchant_id}).json()
        return {seat["seat"] for seat in house["seats"] if seat["sold"]}
