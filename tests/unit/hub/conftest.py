from __future__ import annotations

import pytest

from tests.unit.hub import Service


@pytest.fixture
def service() -> Service:
    return Service()
