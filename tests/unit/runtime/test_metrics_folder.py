from __future__ import annotations

import os
from pathlib import Path

from sse_push.runtime.metrics_folder import shared_by_workers


def test_the_folder_is_in_the_environment_only_while_workers_may_start(tmp_path: Path) -> None:
    with shared_by_workers(tmp_path):
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path / "metrics")
        assert (tmp_path / "metrics").is_dir()

    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
