from __future__ import annotations

import pytest

from tests.unit.stream.followed import Followed


@pytest.fixture
def followed() -> Followed:
    return Followed()
