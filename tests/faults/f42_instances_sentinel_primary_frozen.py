"""As F-32, with two instances behind one nginx."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import f32_sentinel_primary_frozen as alone
from tests.faults.instances import WatchedInstances

FAULT = replace(alone.FAULT, number="F-42", title=f"two instances; {alone.FAULT.title}")

SIZES = ("full", "long")

Setting = WatchedInstances

inject = alone.inject
