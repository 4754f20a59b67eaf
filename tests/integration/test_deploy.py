"""The commands of deploy.md, run as they stand, in folders of the test instead of the system's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sse_push import __version__
from tests.harness.documents import ROOT, Example, examples, rows, section
from tests.harness.programs import clean_environ
from tests.harness.waiting import SECOND, program

PAGE = "sse_push/docs/deploy.md"

WHEEL, VENV, SYSTEMD, CONTAINER, DOCKER, COMPOSE, UP, MANIFESTS, APPLY, UPGRADE, MONITORING = (
    Example(PAGE, "sh", number) for number in range(11)
)
RUN = {VENV, SYSTEMD, CONTAINER, COMPOSE, MANIFESTS, UPGRADE, MONITORING}
NOT_RUN = {
    WHEEL: "as test_package builds one",
    DOCKER: "no Docker runs here; test_image runs the steps of the image",
    UP: "no Docker runs here; test_kit has nginx check what it is given",
    APPLY: "no cluster runs here; test_kit asks kubectl",
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the command where the page has it, and wheels."""
    binaries = tmp_path / "opt/sse-push-before/bin"
    binaries.mkdir(parents=True)
    (tmp_path / "opt/sse-push").symlink_to(binaries.parent)
    script = f'#!/bin/sh\nexec {sys.executable} -m sse_push "$@"\n'
    (binaries / "sse-push").write_text(script)
    (binaries / "sse-push").chmod(0o755)
    (tmp_path / "dist").mkdir()
    for name in ("sse_push-0-py3-none-any.whl", "sse_push-0.2.0-py3-none-any.whl"):
        (tmp_path / "dist" / name).write_text("a wheel")
    return tmp_path


INSTEAD = """
systemctl() { echo "systemctl $*"; }
python3() {
    mkdir -p "$3/bin"
    printf '#!/bin/sh\\necho pip "$@"\\n' > "$3/bin/pip"
    chmod +x "$3/bin/pip"
}
"""
"""No systemd runs here; a virtual environment is made, and a wheel installed, by test_package."""


def play(example: Example, machine: Path) -> str:
    """Run an example, with the system's folders below the machine's, and return what it prints."""
    code = re.sub(r"(?<![\w./])/(opt|etc)/", rf"{machine}/\1/", example.code)
    done = subprocess.run(
        [program("bash"), "-euc", INSTEAD + code],
        cwd=machine,
        env={**clean_environ(), "PATH": f"{machine}/opt/sse-push/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60 * SECOND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_of_the_page_is_run_or_has_a_reason() -> None:
    found = {each for each in examples("sh") if each.document == PAGE}

    assert found == RUN | NOT_RUN.keys()


@pytest.mark.parametrize(("example", "version"), [(VENV, __version__), (UPGRADE, "0.2.0")])
def test_a_version_is_installed_beside_the_others_and_the_link_leads_to_it(
    machine: Path, example: Example, version: str
) -> None:
    said = play(example, machine).splitlines()

    assert (machine / "opt/sse-push").readlink() == machine / f"opt/sse-push-{version}"
    assert said[0].startswith("pip install dist/sse_push-0")
    assert said[1:] == ["systemctl restart sse-push.service"] * (example is UPGRADE)
    assert (machine / "opt/sse-push-before/bin/sse-push").exists(), "the way back"


def test_the_commands_for_systemd_leave_units_and_keys(machine: Path) -> None:
    (machine / "etc/systemd/system").mkdir(parents=True)

    said = play(SYSTEMD, machine)

    env = machine / "etc/sse-push/env"
    assert env.stat().st_mode & 0o777 == 0o600
    names = re.findall(r"^(SSE_PUSH_\w+)=.", env.read_text(), re.MULTILINE)
    assert {"SSE_PUSH_NOTIFY_KEYS", "SSE_PUSH_SUBSCRIBE_AUTH", "SSE_PUSH_REDIS_URL"} <= {*names}
    unit = (machine / "etc/systemd/system/sse-push.service").read_text()
    assert "\nLoadCredential=env:/etc/sse-push/env\n" in unit
    assert "systemctl enable --now sse-push.socket sse-push.service" in said


@pytest.mark.parametrize(
    ("example", "files"),
    [
        (CONTAINER, ["image/Containerfile", "image/sse_push-0-py3-none-any.whl", ".env"]),
        (
            COMPOSE,
            [
                *("push/compose.yaml", "push/Containerfile", "push/sse_push-0-py3-none-any.whl"),
                *("push/nginx/nginx.conf", "push/.env"),
            ],
        ),
    ],
)
def test_the_commands_before_a_build_leave_what_it_needs(
    machine: Path, example: Example, files: list[str]
) -> None:
    play(example, machine)

    assert [name for name in files if not (machine / name).is_file()] == []


def test_the_commands_for_kubernetes_make_manifests_and_a_secret(machine: Path) -> None:
    program("kubectl")

    said = play(MANIFESTS, machine)
    built = [*yaml.safe_load_all(said[said.index("apiVersion:") :])]

    secret: Any = yaml.safe_load((machine / "secret.yaml").read_text())
    (deployment,) = [each for each in built if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if "secret" in each]
    assert secret["metadata"]["name"] == volume["secret"]["secretName"]
    assert pod["containers"][0]["args"][2].rpartition("/")[2] in secret["data"]


def test_the_commands_for_monitoring_leave_files_that_prometheus_takes(machine: Path) -> None:
    promtool = program("promtool")
    play(MONITORING, machine)
    (machine / "prometheus.yml").write_text(Example(PAGE, "yaml").code)

    done = subprocess.run(
        [promtool, "check", "config", machine / "prometheus.yml"], capture_output=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (machine / "grafana/sse-push.json").is_file()


def test_the_table_of_alerts_is_the_rules() -> None:
    path = ROOT / "sse_push/kit/alerts/sse-push.rules.yml"
    (group,) = yaml.safe_load(path.read_text())["groups"]

    table = [row[:2] for row in rows(section(PAGE, "Monitoring")) if row[0].startswith("`")]
    assert table == [[f"`{rule['alert']}`", rule["labels"]["severity"]] for rule in group["rules"]]


def test_the_table_of_kits_has_every_one() -> None:
    intro = section(PAGE, "Deploy: systemd, containers, Kubernetes, upgrades, monitoring")

    named = {row[0].strip("`") for row in rows(intro)[1:]}
    assert named == {"nginx", *(path.name for path in (ROOT / "sse_push/kit").iterdir())}
