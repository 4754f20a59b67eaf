"""As F-31, with two instances behind one nginx."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import f31_sentinel_primary_killed as alone
from tests.faults.instances import WatchedInstances

FAULT = replace(alone.FAULT, number="F-41", title=f"two instances; {alone.FAULT.title}")

SIZES = ("full", "long")

Setting = WatchedInstances

inject = alone.inject
