from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from sse_push.errors import ConfigError
from sse_push.runtime.run_folder import run_folder


def test_the_folder_is_there_while_the_service_runs_and_private(tmp_path: Path) -> None:
    with run_folder("name", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("name-")
        assert folder.stat().st_mode & 0o777 == 0o700

    assert list(tmp_path.iterdir()) == []


def test_without_a_parent_the_folder_is_where_the_system_has_temporary_files() -> None:
    with run_folder("name") as folder:
        assert folder.parent == Path(tempfile.gettempdir())


def test_a_cleaner_that_honours_locks_leaves_the_folder_alone(tmp_path: Path) -> None:
    with run_folder("name", tmp_path) as folder:
        cleaner = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(cleaner)


def test_a_folder_that_somebody_has_deleted_is_no_error_at_the_end(tmp_path: Path) -> None:
    with run_folder("name", tmp_path) as folder:
        shutil.rmtree(folder)


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    expected = re.escape(f"below {missing}, got 'No such file")
    with pytest.raises(ConfigError, match=expected), run_folder("name", missing):
        pass


def test_a_system_without_a_place_for_temporary_files_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)

    expected = "set run_folder, or the variable TMPDIR"
    with pytest.raises(ConfigError, match=expected), run_folder("name"):
        pass
