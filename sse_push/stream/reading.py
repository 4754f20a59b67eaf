"""What all reads of one follower have in common: where those go that can't be answered as usual.

Knows the parts by their names. Does not know what is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sse_push.stream.aside import Aside
from sse_push.stream.moving import Moving
from sse_push.stream.replies import Refusals


class Reading(NamedTuple):
    """``aside`` makes a read harmless, if need be; ``moving`` is for a node of a cluster only."""

    refusals: Refusals
    aside: Aside
    moving: Moving | None
    wake: Callable[[], None]
    """Is called when another read may be due."""
