"""nginx before the service, before a recorder, and before a service that is down."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from sse_push.settings import Settings
from tests.harness.nginx import Nginx, Recorder, recording
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import Publisher, publishing
from tests.harness.waiting import SECOND


@pytest.fixture(scope="session")
def real(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    """The service itself, with the default heartbeat divided by 25, on an idle machine."""
    with serving(
        tmp_path_factory.mktemp("real"),
        redis.url,
        heartbeat_s=Settings.model_fields["heartbeat_s"].default / 25 * SECOND,
        drain_s=SECOND,
    ) as started:
        yield started


@pytest.fixture(scope="session")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    folder = tmp_path_factory.mktemp("before-the-service") / "nginx"
    with Nginx.start(folder, f"127.0.0.1:{service.port}") as started:
        yield started


@pytest.fixture
async def backend(nginx: Nginx) -> AsyncGenerator[Publisher]:
    """A backend that asks nginx, not the service."""
    async with publishing(nginx.internal_url) as publisher:
        yield publisher


@pytest.fixture(scope="session")
def nowhere() -> Generator[str]:
    """The address of a service that is down: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="session")
def deserted(nowhere: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Nginx]:
    with Nginx.start(tmp_path_factory.mktemp("deserted") / "nginx", nowhere) as started:
        yield started


@pytest.fixture
async def recorded() -> AsyncGenerator[tuple[Recorder, str]]:
    """A recorder in the place of the service, and its address."""
    async with recording() as started:
        yield started


@pytest.fixture
async def plain(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Nginx]]:
    with Nginx.start(tmp_path / "nginx", recorded[1]) as nginx:
        yield recorded[0], nginx


@pytest.fixture
async def tls(
    recorded: tuple[Recorder, str], tmp_path: Path
) -> AsyncGenerator[tuple[Recorder, Nginx]]:
    with Nginx.start(tmp_path / "nginx", recorded[1], tls=True) as nginx:
        yield recorded[0], nginx


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder for a socket: nginx's workers run under an account of their own."""
    with tempfile.TemporaryDirectory(prefix="sse_push-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
