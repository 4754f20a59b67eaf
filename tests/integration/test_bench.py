"""The command that measures what a document says, in its shortest form."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bench.scale import report_of_cluster
from tests.bench.sums import CLUSTER_UNITS, EXAMPLE, Use, needs_table, parse_units, written_out
from tests.harness.documents import Example
from tests.harness.waiting import SECOND, program

SCALE = Example("sse_push/docs/scale.md", "sh")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core for the server, one for the load")
def test_the_command_of_the_document_prints_what_the_document_shows() -> None:
    program("nginx")
    python, *arguments = SCALE.code.split()
    quick = [*arguments, "--quick", "--browsers-per-merchant", "3", "--primaries", "2"]
    done = subprocess.run(
        [sys.executable, *quick], capture_output=True, text=True, check=False, timeout=120 * SECOND
    )

    assert (done.returncode, python) == (0, "python"), done.stderr
    of_one, title, of_cluster = done.stdout.partition("## A cluster of 2 primaries\n")
    units, use = parse_units(of_one), Use(browsers_per_merchant=3)
    assert units["redis connections"] == 2
    assert min(units["refresh"], units["notification"], units["browser"]) > 0
    assert f"{use}.\n\n{needs_table(units, use)}\n" in of_one
    assert of_one.endswith(f"\n\n{written_out(units, use, EXAMPLE)}\n\n")
    cluster = parse_units(of_cluster, CLUSTER_UNITS)
    assert cluster["redis connections"] == 2
    assert min(cluster["notification"], cluster["redis notification"]) > 0
    assert f"{title}{of_cluster}" == f"{report_of_cluster(units, cluster, use, 2)}\n"
