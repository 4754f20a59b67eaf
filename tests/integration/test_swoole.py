"""The move from a Swoole server, step by step as in ``sse_push/docs/swoole.md``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import plain_http
from tests.harness.documents import Example
from tests.harness.in_process import serving_here
from tests.harness.nginx import Nginx
from tests.harness.programs import clean_environ
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Stream, open_stream
from tests.harness.waiting import SECOND, free_port, program, until
from tests.harness.wire import Wire
from tests.integration.http.requests import request_of
from tests.integration.http.stored import entries
from tests.integration.test_readme import attempt, command, run

SWOOLE = "sse_push/docs/swoole.md"
SERVE, CALLS, OLD_CALL = Example(SWOOLE, "sh"), Example(SWOOLE, "sh", 1), Example(SWOOLE, "php")
NOTIFY = Example("sse_push/docs/backends.md", "php")

KEY = "a-key-of-the-move-0d4b7a92e6c1f8355b2e"


def serve(folder: Path, redis: Redis, port: int, *, compat: str) -> Service:
    """Start the service by the page's own lines, with this switch, port and key."""
    script = SERVE.code.replace("redis://127.0.0.1:6379/0", redis.url).replace("9501", str(port))
    script = script.replace("$(openssl rand -hex 24)", KEY).replace("COMPAT=on", compat)
    script = script.replace("sse-push serve", "exec sse-push serve")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = folder / f"log-{port}"
    with log.open("ab") as out:
        words = [program("bash"), "-euc", script]
        environ = {**clean_environ(), "PATH": path}
        process = subprocess.Popen(words, cwd=folder, env=environ, stdout=out, stderr=out)
    service = Service(process, log, log, port)
    service.wait_ready()
    return service


async def told(stream: Stream, count: int) -> None:
    await until(lambda: len(stream.refreshes) == count, f"refresh {count}")


async def test_the_move_takes_three_steps_and_a_browser_hears_every_change(
    redis: Redis, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    old = tmp_path / "old.php"
    old.write_text(OLD_CALL.code.replace("9501", str(port)))
    php = program("php")
    environ = {"SSE_PUSH_URL": url, "SSE_PUSH_NOTIFY_KEY": KEY}

    with serve(tmp_path, redis, port, compat="COMPAT=on") as service:
        async with open_stream(url, "42") as stream:
            await told(stream, 1)
            assert run([php, str(old)]) == "success"  # step 1
            await told(stream, 2)
            of_http_1_0 = request_of("GET /?merchantId=42 HTTP/1.0", f"Host: 127.0.0.1:{port}")
            with Wire(port, of_http_1_0) as wire:  # as PHP before version 8 asks
                answer = wire.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"success")
            await told(stream, 3)
            wrong = attempt([php, "-r", f"var_dump(file_get_contents('{url}/?merchantId='));"])
            assert "400 Bad Request" in wrong.stdout + wrong.stderr
            assert wrong.stdout.endswith("bool(false)\n")

            run(command(NOTIFY, tmp_path), **environ)  # step 2, and both ways at once
            await told(stream, 4)
            assert run([php, str(old)]) == "success"
            await told(stream, 5)
        counted = run([program("bash"), "-euc", CALLS.code], **environ)
        assert re.fullmatch(r"sse_push_swoole_requests_total 4.0\n", counted)
        assert "backends may notify without a key" in service.log
        assert "may read the env file" not in service.log
        assert service.stop() == 0

    with serve(tmp_path, redis, port, compat="COMPAT=off") as service:  # step 3
        forgotten = attempt([php, str(old)])
        assert "404 Not Found" in forgotten.stdout + forgotten.stderr
        last_id = run(command(NOTIFY, tmp_path), **environ).strip()
        async with open_stream(url, "42") as stream:
            await until(lambda: [each.id for each in stream.refreshes] == [last_id], "the newest")
        assert 'reason=not_found status=404 path=/ who="address 127.0.0.1"' in service.log
        assert service.stop() == 0


@pytest.mark.nginx
@pytest.mark.parametrize("main_file", ["nginx.conf", "nginx-site.conf"])
async def test_the_old_call_does_not_pass_through_nginx(
    redis: Redis, tmp_path: Path, merchant: str, main_file: str
) -> None:
    compat: dict[str, Any] = {"swoole_compat": "on", "host": "127.0.0.1"}
    folder = tmp_path / "service"
    folder.mkdir()
    async with serving_here(redis.url, folder, **compat) as url:
        upstream = url.removeprefix("http://")
        with Nginx.start(tmp_path / "nginx", upstream, main_file=main_file) as nginx:
            async with plain_http.AsyncClient(timeout=5 * SECOND) as client:
                answers = [
                    (await client.get(f"{base}{path}?merchantId={merchant}")).text
                    for base in (nginx.url, nginx.internal_url)
                    for path in ("/", "//", "/.", "/events/..")
                ]

                assert "success" not in answers
                assert entries(redis, merchant) == 0
                assert (await client.get(f"{url}/?merchantId={merchant}")).text == "success"
                assert entries(redis, merchant) == 1
