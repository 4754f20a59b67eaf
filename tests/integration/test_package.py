"""The packages, away from their checkout: complete, and of use there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from sse_push import __version__
from tests.harness import plain_http
from tests.harness.demo import Demo
from tests.harness.documents import ROOT
from tests.harness.programs import run
from tests.harness.waiting import SECOND, program

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "-w", folder, ROOT], check=True, timeout=120 * SECOND
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Return a folder that has the package as a wheel installs it."""
    target = wheel.parent / "installed"
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def run_installed(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")


def test_the_demo_runs_from_an_installed_wheel_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    environ = {"PYTHONPATH": str(installed)}
    with Demo.start(tmp_path, cwd=empty, environ=environ) as demo:
        page = plain_http.get(f"{demo.url}/")
        module = plain_http.get(f"{demo.url}/client/index.js")
        polls = plain_http.get(f"{demo.url}/client/poll.js")

    assert "<html" in page.text
    assert "export function onRefresh" in module.text
    assert "export function pollInstead" in polls.text
    assert module.headers["content-type"].startswith("text/javascript")
    assert list(empty.iterdir()) == []


def test_the_command_docs_finds_the_documentation_of_the_installed_package(installed: Path) -> None:
    done = run_installed(installed, "docs")

    folder = installed / "sse_push" / "docs"
    files = {path.name for path in (ROOT / "sse_push" / "docs").glob("*.md")} | {"CHANGELOG.md"}
    assert done.stdout.splitlines()[0] == str(folder)
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == files
    assert {path.name for path in folder.iterdir()} == files


def test_the_wheel_describes_itself(installed: Path) -> None:
    (folder,) = installed.glob("*.dist-info")
    metadata = PathDistribution(folder).metadata

    assert (metadata["Name"], metadata["Version"]) == ("sse-push", __version__)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# sse-push\n")  # type: ignore[attr-defined]
    assert metadata["License-Expression"] == "MIT"
    assert (folder / "licenses/LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    versions = [each for each in metadata.get_all("Classifier") or () if ":: 3." in each]
    oldest = metadata["Requires-Python"].removeprefix(">=")
    assert versions == [f"Programming Language :: Python :: {oldest}"]
    assert "eventsource" in metadata["Keywords"]
    assert (installed / "sse_push/py.typed").exists()


def test_the_wheel_has_every_kit_and_nginx_takes_its_own(installed: Path, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    kits = files(installed / "sse_push/kit")
    done = run_installed(installed, "init", "nginx", str(tmp_path / "nginx"))
    from_checkout = run("init", "nginx", str(tmp_path / "checkout"))

    assert {name: kits.get(name) for name in files(ROOT / "sse_push/kit")} == files(
        ROOT / "sse_push/kit"
    )
    assert done.returncode == from_checkout.returncode == 0, done.stderr
    assert files(tmp_path / "nginx") == files(tmp_path / "checkout")
    assert os.access(tmp_path / "nginx/make-certificate", os.X_OK)
    subprocess.run(
        [program("nginx"), "-t", "-q", "-p", tmp_path / "nginx/", "-c", "nginx.conf"], check=True
    )


def test_the_package_of_the_browser_module_is_of_use_elsewhere(tmp_path: Path) -> None:
    npm, node = program("npm"), program("node")
    source = tmp_path / "repository/client"
    shutil.copytree(
        ROOT / "client", source, ignore=shutil.ignore_patterns("node_modules", "demo", "test")
    )
    shutil.copy(ROOT / "LICENSE", source.parent)
    page = tmp_path / "page"
    page.mkdir()
    (page / "package.json").write_text('{"private": true, "type": "module"}')
    quiet = ("--silent", "--offline", "--no-audit", "--no-fund")

    packed = subprocess.run(
        [npm, "pack", *quiet, "--pack-destination", page],
        cwd=source,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout.strip()
    subprocess.run([npm, "install", *quiet, f"./{packed}"], cwd=page, check=True)
    used = subprocess.run(
        [node, "-e", "import('sse-push-client').then(m => console.log(typeof m.onRefresh))"],
        cwd=page,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout

    assert packed == f"sse-push-client-{__version__}.tgz"
    assert used == "function\n"
    there = page / "node_modules/sse-push-client"
    assert {path.name for path in there.iterdir()} == {
        *("README.md", "LICENSE", "package.json"),
        *("index.js", "index.d.ts", "poll.js", "poll.d.ts"),
    }
    assert json.loads((there / "package.json").read_text())["keywords"]


INSTALLS = re.compile(
    r"(?:pip3?|pipx|uv|uv pip|uv tool|npm|pnpm|yarn|bun)[\s\"',*]+(?:install|add|i)\b([^\n;&|)#]*)"
)
OURS = re.compile(r"""(?:^|[\s'"`])(sse[-_]push(?:-client)?(?:\[\w+\])?)(?=$|[\s'"`.,=<>])""")


def test_no_text_tells_to_install_a_name_from_an_index_that_does_not_have_it() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    ).stdout.splitlines()
    told = []
    for name in listed:
        if name.endswith((".png", ".svg", ".lock", "package-lock.json", Path(__file__).name)):
            continue
        text = (ROOT / name).read_text()
        told += [(name, found[0]) for found in INSTALLS.finditer(text) if OURS.search(found[1])]

    assert told == []


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("pip install sse-push", True),
        ("pip install 'sse-push[embedded]'", True),
        ("uv add sse_push", True),
        ("npm install sse-push-client", True),
        ("pip install dist/sse_push-*.whl", False),
        ("npm install ./sse-push-client-0.1.0.tgz", False),
        ("pip install '.[embedded]'; sse-push demo", False),
    ],
)
def test_a_name_of_an_index_is_found_in_a_text(text: str, *, is_told: bool) -> None:
    assert any(OURS.search(found[1]) for found in INSTALLS.finditer(text)) is is_told


OWN_SPACE = ("--mount", "--net", "--pid", "--fork", "--kill-child")
IMAGE = r"""
set -eu
# A plain root: Debian's files, which nobody may write to, and nothing else.
mount -t tmpfs tmpfs "$ROOT"
cd "$ROOT"
mkdir -p proc dev tmp opt run shim
for folder in /usr "$LIBRARIES" "$PREFIX"; do
    mkdir -p "./$folder"
    [ -n "$(ls "./$folder")" ] || mount --bind -o ro "$folder" "./$folder"
done
for name in bin sbin lib lib64; do
    [ ! -L "/$name" ] || { cp -P "/$name" .; continue; }
    mkdir "$name"
    mount --bind -o ro "/$name" "$name"
done
mount -t proc proc proc
mount --bind /dev dev
ln -s "$PREFIX/bin/python$VERSION" shim/python
ip link set lo up

cp "$WHEEL" tmp/
PATH=/shim:$PATH chroot . sh -euc "$RUNS"
echo "$LIBRARIES" > opt/sse-push/lib/python$VERSION/site-packages/libraries.pth

mount -t tmpfs -o mode=1777 tmpfs run/sse-push
mount -o remount,ro "$ROOT"
image() { chroot --userspec="$ACCOUNT" --groups= "$ROOT" env -i $ENVIRON "$@"; }

# As in a container, the service is the first process.
unshare --pid --fork --kill-child \
    chroot --userspec="$ACCOUNT" --groups= "$ROOT" env -i $ENVIRON $SETTINGS $SERVICE &
for _ in $(seq 300); do
    image $SETTINGS "$@" 2>/dev/null && break
done
image "$@"
echo healthy
kill -TERM "$(cat proc/$!/task/$!/children)"
wait $!
echo ended
"""


def joined(*words: str) -> str:
    """Return the lines of the Containerfile that begin with these words, continued lines joined."""
    text = (ROOT / "sse_push/kit/container/Containerfile").read_text()
    lines = re.sub(r" *\\\n *", " ", text).splitlines()
    return "\n".join(line.partition(" ")[2] for line in lines if line.startswith(words))


def test_the_steps_of_the_image_make_a_service_that_is_alive_and_ends_in_order(
    wheel: Path, tmp_path: Path
) -> None:
    """In a root of its own, without a network, read-only, as the account of the image."""
    unshare = program("unshare")
    if subprocess.run([unshare, *OWN_SPACE, "true"], capture_output=True, check=False).returncode:
        assert not os.environ.get("CI"), "only root makes a root"
        pytest.skip("only root makes a root")
    site = str(Path(pytest.__file__).parents[1])
    health = json.loads(joined("HEALTHCHECK").rpartition("CMD ")[2])
    service = [*json.loads(joined("ENTRYPOINT")), *json.loads(joined("CMD "))]
    given = {"NOTIFY_KEYS": "none", "SUBSCRIBE_AUTH": "none", "REDIS_URL": "redis://127.0.0.1:1"}
    (tmp_path / "root").mkdir()

    done = subprocess.run(
        [unshare, *OWN_SPACE, "sh", "-c", IMAGE, "-", *health],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "ROOT": str(tmp_path / "root"),
            "LIBRARIES": site,
            "PREFIX": sys.base_prefix,
            "VERSION": f"3.{sys.version_info.minor}",
            "WHEEL": str(wheel),
            "RUNS": joined("RUN"),
            "ACCOUNT": joined("USER"),
            "ENVIRON": joined("ENV"),
            "SETTINGS": " ".join(f"SSE_PUSH_{name}={text}" for name, text in given.items()),
            "SERVICE": " ".join(service),
            # The libraries are those of the test.
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_COMPILE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
        capture_output=True,
        text=True,
        timeout=120 * SECOND,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["healthy", "ended"]
    assert "worker serves" in done.stderr
