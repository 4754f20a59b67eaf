"""As S-6, with one process for all of the service."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.s06_service_paused import FAULT as WITH_TWO
from tests.faults.s06_service_paused import Setting, inject

FAULT = replace(
    WITH_TWO, number="S-6b", title="service of one worker paused for 90 s (SIGSTOP)", workers=1
)

__all__ = ["FAULT", "Setting", "inject"]
