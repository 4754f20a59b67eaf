"""The kit: its facts are those of the settings, and what has a checker passes it.

No systemd runs here as the first process, no Docker and no Kubernetes. What their own tools say
without them is asked: ``systemd-analyze``, ``kubectl``, ``promtool``.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sse_push import __version__
from sse_push.cli.serve import serve
from sse_push.errors import ConfigError
from sse_push.http import paths
from sse_push.metrics import SERIES
from sse_push.runtime.variables import PREFIX
from sse_push.server import _FILES_BESIDE_CONNECTIONS, _limits
from sse_push.settings import Settings
from tests.harness import plain_http
from tests.harness.documents import ROOT
from tests.harness.programs import run
from tests.harness.service import Service
from tests.harness.waiting import SECOND, program

KIT = ROOT / "sse_push/kit"
DEFAULTS = Settings.load()
IMAGE = f"sse-push:{__version__}"


def checked(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=30 * SECOND, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings_of(variables: Iterable[tuple[str, str]]) -> Settings:
    """Build the settings of these variables; each must be one."""
    given = {name.removeprefix(PREFIX).lower(): text for name, text in variables if PREFIX in name}
    return Settings.load(**given)


def stop_s(settings: Settings) -> float:
    limits = _limits(settings)
    return limits.leave_s + limits.stop_s


# -- systemd

SERVICE, SOCKET = KIT / "systemd/sse-push.service", KIT / "systemd/sse-push.socket"


def values(path: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE)


def value(path: Path, key: str) -> str:
    (found,) = values(path, key)
    return found


def of_unit() -> Settings:
    pairs = [text.partition("=") for text in values(SERVICE, "Environment")]
    return settings_of((name, text) for name, _, text in pairs)


def test_the_units_pass_systemds_own_checkers(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    for path in (SERVICE, SOCKET):
        text = path.read_text().replace("/opt/sse-push/bin/sse-push", "/bin/true")
        (tmp_path / path.name).write_text(text)

    said = checked(analyze, "verify", *(tmp_path / path.name for path in (SERVICE, SOCKET)))
    exposed = checked(analyze, "security", "--offline=true", "--threshold=20", SERVICE)

    assert [line for line in said.splitlines() if "sse-push" in line] == []
    assert re.search(r"exposure level for sse-push\.service: 1\.\d OK", exposed)


def test_the_socket_is_where_the_settings_and_nginx_have_it() -> None:
    nginx = (ROOT / "nginx/conf.d/sse-push.conf").read_text()

    assert values(SOCKET, "ListenStream") == [f"{DEFAULTS.host}:{DEFAULTS.port}"]
    assert f"\n    server {value(SOCKET, 'ListenStream')} " in nginx
    (unix,) = re.findall(r"^#ListenStream=(.*)$", SOCKET.read_text(), re.MULTILINE)
    assert f"\n    #server unix:{unix} " in nginx
    assert f"`Environment=SSE_PUSH_UDS={unix}`" in SOCKET.read_text()
    assert int(value(SOCKET, "Backlog")) == DEFAULTS.listen_backlog


def test_the_times_of_the_unit_are_longer_than_those_of_the_service() -> None:
    settings = of_unit()

    assert int(value(SERVICE, "TimeoutStopSec")) > stop_s(settings)
    assert int(value(SERVICE, "TimeoutStartSec")) > settings.start_limit_s
    assert int(value(SERVICE, "WatchdogSec")) > 4 * settings.probe_deadline_s


def test_the_unit_gives_the_service_what_it_needs() -> None:
    settings = of_unit()

    assert str(settings.run_folder) == f"/run/{value(SERVICE, 'RuntimeDirectory')}"
    files = settings.max_connections + _FILES_BESIDE_CONNECTIONS
    assert int(value(SERVICE, "LimitNOFILE")) >= files
    assert run("serve", SSE_PUSH_PORT="x").returncode == int(
        value(SERVICE, "RestartPreventExitStatus")
    )
    name, _, _ = value(SERVICE, "LoadCredential").partition(":")
    assert value(SERVICE, "ExecStart").endswith(f"--env-file ${{CREDENTIALS_DIRECTORY}}/{name}")


@pytest.mark.parametrize("kit", ["systemd", "container", "kubernetes"])
def test_the_command_of_a_kit_is_one_that_the_service_takes(kit: str, tmp_path: Path) -> None:
    commands = {
        "systemd": value(SERVICE, "ExecStart").split()[1:],
        "container": json.loads(dict(instructions())["CMD"]),
        "kubernetes": manifest("deployment")["spec"]["template"]["spec"]["containers"][0]["args"],
    }
    name, *flags = commands[kit]
    (tmp_path / "env").write_text("SSE_PUSH_NOTIFY_KEYS=none")
    flags = [str(tmp_path / "env") if flag.endswith("/env") else flag for flag in flags]

    assert name == "serve"
    assert serve.make_context("serve", flags).params["env_file"] is not None or not flags


# -- container, Compose

CONTAINERFILE = (KIT / "container/Containerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the image, with continued lines joined."""
    joined = re.sub(r" *\\\n *", " ", CONTAINERFILE)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def image_environ() -> dict[str, str]:
    (texts,) = [rest for word, rest in instructions() if word == "ENV"]
    return dict(each.split("=", 1) for each in texts.split())


def of_image() -> Settings:
    return settings_of(image_environ().items())


def test_the_image_listens_where_it_says_and_is_asked_there() -> None:
    settings = of_image()
    words = dict(instructions())

    assert words["EXPOSE"] == str(settings.port)
    assert f"http://127.0.0.1:{settings.port}{paths.HEALTHZ}" in words["HEALTHCHECK"]
    assert settings.host == "0.0.0.0"
    assert f" {settings.run_folder}" in dict(instructions())["RUN"]
    assert f"-t {IMAGE} " in CONTAINERFILE


COMPOSE = yaml.safe_load((KIT / "compose/compose.yaml").read_text())


def test_the_services_of_compose_have_settings_that_are_there() -> None:
    service, nginx = COMPOSE["services"]["sse-push"], COMPOSE["services"]["nginx"]
    settings = settings_of({**image_environ(), **service["environment"]}.items())
    address = service["networks"]["push"]["ipv4_address"]
    (subnet,) = COMPOSE["networks"]["push"]["ipam"]["config"]

    assert service["image"] == IMAGE
    assert service["tmpfs"] == [str(settings.run_folder)]
    assert int(service["stop_grace_period"].rstrip("s")) > stop_s(settings)
    assert f"/server {address}:{settings.port} /" in nginx["command"][2]
    proxy = nginx["networks"]["push"]["ipv4_address"]
    assert [str(each) for each in settings.trusted_proxies] == [f"{proxy}/32"]
    network = ipaddress.ip_network(subnet["subnet"])
    assert {ipaddress.ip_address(each) in network for each in (address, proxy)} == {True}
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://valkey:6379/0"
    used = [each for part in COMPOSE["services"].values() for each in part.get("depends_on", {})]
    assert {*used} <= set(COMPOSE["services"])


def test_nginx_of_compose_serves_with_the_files_as_they_ship(tmp_path: Path) -> None:
    (ports,) = COMPOSE["services"]["nginx"]["ports"]
    script = COMPOSE["services"]["nginx"]["command"][2]
    program("nginx")
    run("init", "nginx", str(tmp_path / "kit"))
    here = script.replace("/kit", str(tmp_path / "kit")).replace("/tmp/nginx", f"{tmp_path}/nginx")

    checked(
        "env", "PATH=/usr/sbin:/usr/bin:/bin", "sh", "-c", here.replace("exec nginx", "nginx -t")
    )

    assert (
        "server 172.30.8.10:8000 max_fails=0;"
        in (tmp_path / "nginx/conf.d/sse-push.conf").read_text()
    )
    assert f"listen {ports.split(':')[1]} " in (ROOT / "nginx/nginx.conf").read_text()


# -- Kubernetes

MANIFESTS = KIT / "kubernetes"


def manifest(name: str) -> Any:
    return yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())


def test_kustomize_takes_the_manifests_and_no_other() -> None:
    built = checked(program("kubectl"), "kustomize", MANIFESTS)

    listed = manifest("kustomization")["resources"]
    assert sorted(listed) == sorted(
        {path.name for path in MANIFESTS.iterdir()} - {"kustomization.yaml"}
    )
    kinds = [each["kind"] for each in yaml.safe_load_all(built)]
    assert sorted(kinds) == ["Deployment", "PodDisruptionBudget", "Service"]


@pytest.mark.parametrize(
    ("name", "change"),
    [("deployment", ("set", "image", "sse-push=x")), ("service", ("set", "selector", "a=b"))],
)
def test_a_manifest_has_no_field_that_kubectl_does_not_know(
    name: str, change: tuple[str, ...]
) -> None:
    """These commands read an object as its type, and write it again: unknown fields are lost."""
    action, kind, what = change
    path = str(MANIFESTS / f"{name}.yaml")

    said = checked(program("kubectl"), action, kind, "--local", "-f", path, what, "-o", "json")

    assert list(lost(manifest(name), json.loads(said))) == []


def lost(given: Any, known: Any, place: str = "") -> Iterator[str]:
    """Yield the places of what is given and not known."""
    if place == ".spec.selector.app.kubernetes.io/name":
        return  # what the command has changed
    if isinstance(given, dict):
        for key, inner in given.items():
            yield from lost(inner, known.get(key), f"{place}.{key}") if known else [place]
    elif isinstance(given, list):
        for inner, other in zip(given, known or [], strict=False):
            yield from lost(inner, other, f"{place}[]")
        if len(given) != len(known or []):
            yield place
    elif known is None:
        yield place


def test_the_budget_is_as_kubectl_writes_one() -> None:
    budget = manifest("disruption-budget")
    (label,) = budget["spec"]["selector"]["matchLabels"].items()
    command = ["create", "pdb", "sse-push", "--dry-run=client", "-o", "json"]
    command += [f"--selector={'='.join(label)}", "--max-unavailable=1"]

    made = json.loads(checked(program("kubectl"), *command))

    assert made["spec"] == budget["spec"]


def test_the_pods_are_run_as_the_service_and_its_image_mean_it() -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {**image_environ(), **{each["name"]: each["value"] for each in container["env"]}}
    settings = settings_of(variables.items())
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}

    assert container["image"] == IMAGE
    assert pod["terminationGracePeriodSeconds"] > stop_s(settings)
    assert settings.shutdown_delay_s == 10
    assert pod["enableServiceLinks"] is False
    assert {f"{pod['securityContext'][name]}" for name in ("runAsUser", "runAsGroup")} == {
        *dict(instructions())["USER"].split(":")
    }
    assert mounts["run"] == str(settings.run_folder)
    assert container["args"][:2] == ["serve", "--env-file"]
    assert container["args"][2].startswith(f"{mounts['secret']}/")
    assert [each["containerPort"] for each in container["ports"]] == [settings.port]
    probes = {
        name: probe["httpGet"]["path"] for name, probe in container.items() if "Probe" in name
    }
    assert probes == {
        "startupProbe": paths.HEALTHZ,
        "livenessProbe": paths.HEALTHZ,
        "readinessProbe": paths.READYZ,
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= settings.start_limit_s
    service, labels = manifest("service"), manifest("deployment")["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == labels
    assert manifest("disruption-budget")["spec"]["selector"]["matchLabels"] == labels
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == paths.METRICS
    assert annotations["prometheus.io/port"] == str(settings.port)


# -- alerts, dashboard

RULES, RULE_TESTS = KIT / "alerts/sse-push.rules.yml", KIT / "alerts/sse-push.tests.yml"
DASHBOARD = json.loads((KIT / "grafana/sse-push.json").read_text())
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that no series of ours names by itself."""


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_alerts_pass_their_own_tests() -> None:
    promtool = program("promtool")

    checked(promtool, "check", "rules", RULES)
    checked(promtool, "test", "rules", RULE_TESTS)


def test_each_alert_has_a_test_that_raises_it() -> None:
    told = {"alertname": set(re.findall(r'alertname(?:="|: )(\w+)', RULE_TESTS.read_text()))}

    assert told["alertname"] == {rule["alert"] for rule in alerts()}
    assert all({"summary", "action"} == set(rule["annotations"]) for rule in alerts())


def test_an_alert_that_is_changed_is_found_by_the_tests(tmp_path: Path) -> None:
    text = RULES.read_text().replace("> 0.8 *", "> 0.9 *")
    (tmp_path / RULES.name).write_text(text)
    (tmp_path / RULE_TESTS.name).write_text(RULE_TESTS.read_text())

    done = subprocess.run(
        [program("promtool"), "test", "rules", tmp_path / RULE_TESTS.name],
        capture_output=True,
        check=False,
    )

    assert done.returncode == 1
    assert b"SsePushNearlyFull" in done.stdout + done.stderr


def test_the_queries_of_the_dashboard_have_the_form_of_queries(tmp_path: Path) -> None:
    rules = [
        {"record": f"r{number}", "expr": expr.replace("$__rate_interval", "1m")}
        for number, expr in enumerate(queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "q", "rules": rules}]}))

    checked(program("promtool"), "check", "rules", path)


def test_alerts_and_dashboard_ask_for_what_a_service_tells(service: Service) -> None:
    families = list(text_string_to_metric_families(plain_http.get(f"{service.url}/metrics").text))
    labels: dict[str, set[str]] = {}
    for sample in (each for family in families for each in family.samples):
        labels.setdefault(sample.name, set()).update(sample.labels)
    label_values = {
        text for family in families for sample in family.samples for text in sample.labels.values()
    }

    asked = [*queries(), *(rule["expr"] for rule in alerts())]
    for expr in asked:
        names = set(re.findall(r"sse_push_\w+", expr))
        assert names <= set(labels), expr
        known = OF_PROMETHEUS.union(*(labels[name] for name in names))
        grouped = [each for by in re.findall(r"by \(([^)]*)\)", expr) for each in by.split(", ")]
        chosen = re.findall(r'(\w+)(?:=~|!~|!=|=)"', expr)
        assert {*grouped, *chosen} <= known, expr
        fixed = re.findall(r'(?:outcome|reason|error|fault)!?="(\w+)"', expr)
        assert {*fixed} <= label_values, expr


def test_the_dashboard_shows_every_series() -> None:
    shown = set(re.findall(r"sse_push_\w+", " ".join(queries())))

    assert {name.removesuffix("_bucket") for name in shown} == set(SERIES)


def test_a_legend_names_labels_that_the_query_keeps() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            kept = set(re.findall(r"by \(([^)]*)\)", target["expr"]))
            is_summed = "sum(" in target["expr"] or "max(" in target["expr"]
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert any(label in by for by in kept) or not is_summed, target["expr"]


def test_settings_of_the_kit_that_are_not_there_are_found() -> None:
    with pytest.raises((ConfigError, TypeError)):
        settings_of([("SSE_PUSH_GONE", "1")])
