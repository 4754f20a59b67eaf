"""The gate's second look at a test that failed beside others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import repeat

STEADY = "def test_steady(): pass\n"
ONCE = """
from pathlib import Path
def test_unsteady():
    with (Path(__file__).parent / "looks").open("a+") as looks:
        looks.write("x")
        looks.seek(0)
        assert len(looks.read()) > 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tests stand, as the root of a repository does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return tmp_path


def repeated(folder: Path, tests: str) -> int:
    (folder / "test_it.py").write_text(tests)
    return repeat.main(["test_it.py", "--rootdir=."])


def test_what_fails_once_is_named_and_passes(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = repeated(folder, STEADY + ONCE)

    last = capfd.readouterr().out.splitlines()[-1]
    assert (status, last) == (
        0,
        "passed, but unsteady beside other tests: test_it.py::test_unsteady",
    )
    assert len((folder / "looks").read_text()) == 1 + repeat.TIMES


def test_what_fails_again_fails(folder: Path) -> None:
    assert repeated(folder, STEADY + "def test_wrong(): assert False\n") == 1


def test_what_fails_now_and_then_fails(folder: Path) -> None:
    every_other = ONCE.replace("> 1", "% 2 == 0")

    assert repeated(folder, every_other) == 1
    assert len((folder / "looks").read_text()) < 1 + repeat.TIMES


def test_more_than_a_few_failures_are_not_looked_at_again(folder: Path) -> None:
    many = "".join(
        ONCE.replace("unsteady", str(number)).replace("> 1", "< 0")
        for number in range(repeat.MOST + 1)
    )

    assert repeated(folder, many) == 1
    assert len((folder / "looks").read_text()) == repeat.MOST + 1


def test_what_is_not_a_failed_test_is_not_looked_at_again(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = repeated(folder, "import nothing_of_this_name\n")

    assert status == pytest.ExitCode.INTERRUPTED
    assert capfd.readouterr().out.count("Interrupted: ") == 1
