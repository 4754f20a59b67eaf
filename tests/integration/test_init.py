"""``sse-push init``: the files of each kit, written once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sse_push.cli import init as module
from sse_push.cli.init import init
from sse_push.errors import ConfigError
from tests.harness.documents import ROOT

KIT = ROOT / "sse_push/kit"
NAMES = sorted([*(path.name for path in KIT.iterdir() if path.is_dir()), "nginx"])


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(init, [str(each) for each in arguments], catch_exceptions=False)


def written(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_every_kit_is_named_in_the_help() -> None:
    listed = (init.help or "").partition("KIT is ")[2].partition(".")[0]

    assert sorted(listed.replace(" or ", ", ").split(", ")) == NAMES


@pytest.mark.parametrize("kit", [name for name in NAMES if name not in ("nginx", "compose")])
def test_the_files_of_a_kit_are_written_as_they_ship(kit: str, tmp_path: Path) -> None:
    done = run(kit, tmp_path / "new" / kit)

    assert written(tmp_path / "new" / kit) == written(KIT / kit)
    assert sorted(done.stdout.splitlines()) == sorted(
        str(tmp_path / "new" / kit / name) for name in written(KIT / kit)
    )
    assert done.stderr.startswith("next: ")


def test_nginx_is_written_without_what_it_leaves_and_a_program_can_be_run(tmp_path: Path) -> None:
    run("nginx", tmp_path)

    shipped = [*(ROOT / "nginx").rglob("*.conf"), ROOT / "nginx/README.md"]
    shipped.append(ROOT / "nginx/make-certificate")
    assert written(tmp_path) == {
        str(path.relative_to(ROOT / "nginx")): path.read_bytes() for path in shipped
    }
    assert os.access(tmp_path / "make-certificate", os.X_OK)


def test_the_files_of_nginx_are_those_of_a_wheel_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kit/nginx").mkdir(parents=True)
    (tmp_path / "kit/nginx/nginx.conf").write_text("of a wheel")
    monkeypatch.setattr(module, "_KIT", tmp_path / "kit")

    run("nginx", tmp_path / "here")

    assert written(tmp_path / "here") == {"nginx.conf": b"of a wheel"}


def test_compose_is_written_with_what_its_services_are_made_of(tmp_path: Path) -> None:
    run("compose", tmp_path)

    assert {"compose.yaml", "Containerfile", "nginx/nginx.conf"} <= set(written(tmp_path))


def test_a_kit_is_written_into_a_folder_of_its_name_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    run("alerts")

    assert written(tmp_path / "alerts") == written(KIT / "alerts")


def test_nothing_is_overwritten_unless_it_is_wished(tmp_path: Path) -> None:
    (tmp_path / "sse-push.socket").write_text("mine")
    (tmp_path / "sse-push.service").symlink_to(tmp_path / "mine")
    (tmp_path / "other").write_text("mine")

    with pytest.raises(ConfigError) as raised:
        run("systemd", tmp_path)
    names = [tmp_path / name for name in ("sse-push.service", "sse-push.socket")]
    assert str(raised.value) == (
        f"expected none of these files, got {names[0]}, {names[1]}: choose another DIR, or "
        "overwrite them with --force"
    )
    assert (tmp_path / "sse-push.socket").read_text() == "mine"

    run("systemd", tmp_path, "--force")
    assert written(tmp_path) == {**written(KIT / "systemd"), "other": b"mine"}
    assert not (tmp_path / "mine").exists(), "a link is replaced, not followed"


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"expected to write .*, got: File exists"):
        run("alerts", tmp_path / "file")
