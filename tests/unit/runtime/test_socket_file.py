from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from sse_push.runtime.socket_file import is_open_to_all


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder that everybody may enter: that of pytest is for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("folder_mode", "mode", "is_open"),
    [
        (0o755, 0o666, True),
        (0o711, 0o602, True),
        (0o1777, 0o666, True),
        (0o755, 0o660, False),
        (0o750, 0o666, False),
        (0o2750, 0o777, False),
        (0o700, 0o666, False),
        (0o766, 0o666, False),
        (0o777, 0o600, True),
        (0o1777, 0o600, False),
    ],
)
def test_a_socket_is_open_to_all_who_may_enter_its_folder_and_write(
    folder: Path, folder_mode: int, mode: int, *, is_open: bool
) -> None:
    folder.chmod(folder_mode)

    assert is_open_to_all(folder / "push.sock", mode) is is_open


def test_a_folder_further_up_protects_the_socket(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir(mode=0o755)
    assert is_open_to_all(inner / "push.sock", 0o666)

    folder.chmod(0o700)

    assert not is_open_to_all(inner / "push.sock", 0o666)


def test_a_link_is_as_open_as_the_folders_that_it_leads_to(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    tmp_path.chmod(0o700)
    (folder / "link").symlink_to(inner)
    inner.chmod(0o755)

    assert not is_open_to_all(folder / "link" / "push.sock", 0o666)


def test_a_folder_that_is_missing_is_open_to_nobody(folder: Path) -> None:
    assert not is_open_to_all(folder / "none" / "push.sock", 0o666)
