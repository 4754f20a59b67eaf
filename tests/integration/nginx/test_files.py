"""The shipped files: they pass as they stand, and their numbers agree with the service's."""

from __future__ import annotations

import itertools
import re
import stat
import subprocess
from pathlib import Path

import pytest

from sse_push import server
from sse_push.settings import Settings
from tests.harness.documents import ROOT
from tests.harness.nginx import (
    SHIPPED,
    SITE,
    copy_shipped,
    make_certificate,
)
from tests.harness.waiting import program

pytestmark = pytest.mark.nginx

SOFT_ANSWERS = "snippets/soft-answers.conf"


# -- the folder


@pytest.mark.parametrize("main_file", ["nginx.conf", "nginx-tls.conf", "nginx-site.conf"])
def test_the_folder_passes_as_it_stands(tmp_path: Path, main_file: str) -> None:
    """With TLS: once there is a certificate."""
    copy_shipped(tmp_path / "nginx")
    if main_file == "nginx-tls.conf":
        make_certificate(tmp_path / "nginx")

    done = subprocess.run(
        [program("nginx"), "-t", "-p", "nginx/", "-c", main_file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
    # From nginx 1.25.1 on there is a directive for HTTP/2, which older ones do not know.
    warnings = [line for line in done.stderr.splitlines() if "[warn]" in line]
    assert [line for line in warnings if '"listen ... http2" directive' not in line] == []


def test_a_stream_is_never_redirected() -> None:
    """Chromium would come back to the new address, Firefox to the old one."""
    texts = [path.read_text() for path in SHIPPED.rglob("*.conf")]
    directives = "\n".join(re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE) for text in texts)

    assert re.findall(r"return 30\d|rewrite .* (?:redirect|permanent)", directives) == []


def test_no_file_reads_a_parameter_that_may_stand_several_times() -> None:
    """``$arg_merchant_id`` is the first merchant only: the others would pass unseen."""
    files = [path for folder in ("nginx", "sse_push/kit") for path in (ROOT / folder).rglob("*")]

    assert [
        path for path in files if path.is_file() and b"$arg_" in path.read_bytes().lower()
    ] == []


def test_the_recommended_upstream_is_the_default_one_on_a_unix_socket() -> None:
    shared = (SHIPPED / SITE).read_text()
    default = re.search(r"\n( *)server 127\.0\.0\.1:8000 (.*);\n", shared)
    assert default is not None

    assert f"\n{default[1]}#server unix:/run/sse-push/sse-push.sock {default[2]};\n" in shared


def test_the_main_files_differ_in_their_public_server_only() -> None:
    def directives(name: str) -> list[str]:
        lines = [line.strip() for line in shipped(name).splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    plain, tls = directives("nginx.conf"), directives("nginx-tls.conf")

    assert [line for line in plain if line not in tls] == [
        "listen 8080 default_server;",
        "listen 8080 sndbuf=32k backlog=4096;",
    ]
    assert [line for line in tls if line not in plain] == [
        "listen 8443 ssl http2 default_server;",
        "include snippets/tls.conf;",
        "listen 8443 ssl http2 sndbuf=32k backlog=4096;",
        "include snippets/tls.conf;",
    ]


def depth_of(line: str) -> int:
    """Return how many blocks a line of a file opens, those that it closes subtracted."""
    code = line.partition("#")[0].strip()
    return code.endswith("{") - (code == "}")


@pytest.mark.parametrize("name", ["events.conf", "events-auth-request.conf"])
def test_what_a_site_includes_consists_of_locations_only(name: str) -> None:
    """Else its headers, limits and errors would be those of the pages of the site, too."""
    outside, depth = [], 0
    for line in shipped(f"snippets/{name}").splitlines() + shipped(SOFT_ANSWERS).splitlines():
        if depth == 0 and line and not line.startswith("#"):
            outside.append(line)
        depth += depth_of(line)

    outside.remove(f"include {SOFT_ANSWERS};")
    assert [line for line in outside if not line.startswith(("location ", "}"))] == []


# -- the certificate


def test_a_certificate_is_for_the_names_given_and_its_key_is_private(
    tmp_path: Path,
) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", "push.shop.test", "*.shop.test", "192.0.2.7", "::1")

    assert "DNS:push.shop.test,DNS:*.shop.test,IP:192.0.2.7,IP:::1" in done.stdout
    key = tmp_path / "nginx/tls/key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in key.parent.iterdir()) == ["certificate.pem", "key.pem"]


def test_a_certificate_that_is_there_is_kept(tmp_path: Path) -> None:
    copy_shipped(tmp_path / "nginx")
    make_certificate(tmp_path / "nginx")
    first = (tmp_path / "nginx/tls/key.pem").read_bytes()

    again = make_certificate(tmp_path / "nginx", "localhost")

    assert again.returncode == 2
    assert "is there already: remove it first" in again.stderr
    assert (tmp_path / "nginx/tls/key.pem").read_bytes() == first


@pytest.mark.parametrize("name", ["", "-out", "a,DNS:b", "a b", "a/b", "a\nb", "é"])
def test_a_malformed_name_gets_no_certificate(tmp_path: Path, name: str) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", name)

    assert done.returncode == 2
    assert f"expected a name or an address, got '{name}'" in done.stderr
    assert not (tmp_path / "nginx/tls").exists()


def test_a_name_that_openssl_refuses_leaves_no_file_behind(tmp_path: Path) -> None:
    copy_shipped(tmp_path / "nginx")

    done = make_certificate(tmp_path / "nginx", "300.1.1.1")

    assert done.returncode == 2
    assert "openssl made no certificate for IP:300.1.1.1" in done.stderr
    assert list((tmp_path / "nginx/tls").iterdir()) == []


# -- numbers that must agree


def default(name: str) -> float:
    value: float = Settings.model_fields[name].default
    return value


def seconds(directive: str, text: str) -> float:
    return float(only_value(rf"{directive} +([0-9]+)s;", text))


def mebibytes(directive: str, text: str) -> float:
    return float(only_value(rf"{directive} +([0-9]+)m;", text)) * 1024 * 1024


def only_value(pattern: str, text: str) -> str:
    found = re.findall(rf"^ *{pattern}", text, re.MULTILINE)
    assert len(found) == 1, f"expected {pattern} once, got {found}"
    value: str = found[0]
    return value


def block(opening: str, text: str) -> str:
    """Return what stands in a block, without the blocks inside it."""
    _, found, rest = text.partition(f"{opening} {{\n")
    assert found, opening
    depth, kept = 1, ""
    for line in rest.split("\n"):
        code = "" if line.lstrip().startswith("#") else line
        opens, closes = code.rstrip().endswith("{"), code.strip() == "}"
        if depth == 1 and not opens and not closes:
            kept += f"{code}\n"
        depth += opens - closes
        if depth == 0:
            return kept
    raise AssertionError(opening)


def shipped(name: str) -> str:
    return (SHIPPED / name).read_text()


PROCESS = shipped("snippets/process.conf")

STREAM = shipped("snippets/event-stream.conf")

NOTIFY = shipped("snippets/notify.conf")

SHARED = shipped("conf.d/sse-push.conf")


def test_heartbeats_come_well_before_nginx_ends_a_silent_stream() -> None:
    assert default("heartbeat_s") * 2 < seconds("proxy_read_timeout", STREAM)


def test_the_service_answers_a_notification_before_nginx_gives_up() -> None:
    assert "_timeout " not in block("location = /notify", SHARED) + NOTIFY
    inherited = shipped("snippets/server.conf")

    assert default("notify_timeout_s") < seconds("proxy_read_timeout", inherited)
    assert default("notify_timeout_s") < seconds("proxy_send_timeout", inherited)


def test_the_service_is_first_to_end_a_stalled_stream() -> None:
    assert default("send_timeout_s") < seconds("send_timeout", STREAM)


def test_no_stream_outlives_a_worker_after_a_reload() -> None:
    longest = default("max_connection_age_s") * 1.2 + seconds("send_timeout", STREAM)
    assert longest < seconds("worker_shutdown_timeout", PROCESS)


def test_a_body_has_one_limit() -> None:
    assert default("body_limit_bytes") == mebibytes("client_max_body_size", NOTIFY)
    assert default("body_limit_bytes") == mebibytes("client_body_buffer_size", NOTIFY)


def test_nginx_is_first_to_close_an_idle_connection() -> None:
    assert seconds("keepalive_timeout", block("upstream sse_push", SHARED)) < server._KEEP_ALIVE_S


def test_soft_answers_of_nginx_have_the_reconnection_times_of_the_service() -> None:
    values = block("split_clients $request_id $sse_push_soft_retry_ms", SHARED)
    retries_ms = [int(found) for found in re.findall(r"([0-9]+);", values)]

    assert retries_ms[0] == default("soft_retry_min_ms")
    assert retries_ms[-1] <= default("soft_retry_max_ms")
    steps = {later - earlier for earlier, later in itertools.pairwise(retries_ms)}
    assert steps == {default("retry_ms")}


def test_the_upstream_of_nginx_is_the_default_address_of_the_service() -> None:
    host, port = (Settings.model_fields[name].default for name in ("host", "port"))
    assert f"server {host}:{port} " in block("upstream sse_push", SHARED)


def test_a_worker_may_open_more_files_than_connections() -> None:
    connections = int(only_value("worker_connections +([0-9]+);", PROCESS))
    assert connections < int(only_value("worker_rlimit_nofile +([0-9]+);", PROCESS))


def test_the_sum_of_connections_is_what_a_worker_may_have() -> None:
    connections = int(only_value("worker_connections +([0-9]+);", PROCESS))
    streams = int(only_value("limit_conn sse_push_worker +([0-9]+);", STREAM))
    said = PROCESS.partition("An event stream takes two")[2].replace("#", "")
    terms = re.search(
        r"2 \* (\d+).*?\+\s+(\d+).*?\+\s+(\d+).*?\+\s+(\d+).*?=\s+(\d+)", said, re.DOTALL
    )
    assert terms is not None
    each, *others, total = map(int, terms.groups())

    assert (each, total) == (streams, connections)
    assert 2 * each + sum(others) == total
    assert others[:2] == [
        int(only_value("keepalive +([0-9]+);", block(f"upstream {name}", SHARED)))
        for name in ("sse_push", "sse_push_backend")
    ]


def test_the_streams_of_a_browser_stay_below_the_limit_of_its_address() -> None:
    """Its streams are those of one HTTP/2 connection: past that limit it gets no answer at all."""
    tls = shipped("snippets/tls.conf")
    of_a_browser = only_value("http2_max_concurrent_streams +([0-9]+);", tls)
    of_an_address = only_value("limit_conn sse_push_address +([0-9]+);", STREAM)

    assert int(of_a_browser) < int(of_an_address)


def test_an_office_that_lost_its_streams_is_let_in_at_once_or_after_one_soft_answer() -> None:
    """Behind one address: its streams in four workers, and then as many as the burst."""
    burst = int(only_value("limit_req zone=sse_push_events burst=([0-9]+) nodelay;", STREAM))
    rate = int(only_value("limit_req_zone .* zone=sse_push_events:.* rate=([0-9]+)r/s;", SHARED))
    of_an_address = int(only_value("limit_conn sse_push_address +([0-9]+);", STREAM))

    assert burst >= 4 * of_an_address
    soft_s = (default("soft_retry_max_ms") - default("soft_retry_min_ms")) / 1000
    assert rate * soft_s >= burst
