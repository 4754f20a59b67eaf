"""Workers that cannot start, a stop in the middle of a restart, and a folder that is taken away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from tests.harness import plain_http
from tests.harness.programs import run
from tests.harness.redis import Redis
from tests.harness.service import Service, serving
from tests.harness.stream import open_stream, publishing
from tests.harness.tokens import private_key, public_pem, token_of
from tests.harness.waiting import SECOND, until, wait_for


def test_workers_that_cannot_start_harm_no_other_and_are_tried_again(
    redis: Redis, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_text(public_pem("RS256"))
    with serving(
        tmp_path,
        redis.url,
        *("--workers", "2", "--subscribe-auth", "token"),
        tolerated="worker cannot start",
        token_keys_file=keys,
        token_algorithms="RS256",
        drain_s=SECOND,
    ) as service:
        victim, healthy = service.workers
        keys.unlink()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: service.log.count("worker cannot start") == 3, "three starts that fail")

        assert healthy in service.workers
        token = token_of(algorithm="RS256", key=private_key("RS256"), aud=..., iss=...)
        with plain_http.Client() as client:
            assert client.head(f"{service.url}/events?token={token}").status_code == 200
        assert "Traceback" not in service.log
        keys.write_text(public_pem("RS256"))
        wait_for(lambda: service.log.count("worker serves") == 3, "a start that succeeds")


async def test_a_stop_is_obeyed_at_once_in_the_middle_of_a_restart(
    redis: Redis, tmp_path: Path
) -> None:
    drain_s = 4 * SECOND
    service = Service.start(tmp_path, redis.url, "--workers", "3", drain_s=drain_s)
    try:
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(open_stream(service.url, f"m{number % 5}"))
                for number in range(60)
            ]
            for stream in streams:
                await stream.next("refresh")
            service.process.send_signal(signal.SIGHUP)
            await until(lambda: "draining" in service.log, "a worker that drains")
            service.process.terminate()
            # Those of one worker after those of another would take twice as long.
            status = await asyncio.to_thread(service.process.wait, 1.5 * drain_s)
            for stream in streams:
                await stream.wait_complete()
    finally:
        service.kill()

    assert status == 0
    service.assert_no_errors()


async def test_a_folder_that_is_taken_away_is_made_again(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    with serving(
        tmp_path,
        redis.url,
        *("--workers", "2"),
        run_folder=run_folder,
        probe_interval_s=0.3 * SECOND,
        drain_s=SECOND,
    ) as service:
        workers = service.workers
        (folder,) = run_folder.iterdir()
        async with publishing(service.url) as backend, open_stream(service.url, merchant) as stream:
            await backend.notify(merchant)
            await stream.next("refresh")
            await until(lambda: stored(service) == 1, "the count in the metrics")

            shutil.rmtree(folder)
            await until(lambda: not service.is_ready() or folder.exists(), "its loss")
            await until(service.is_ready, "both workers on the board again")
            await until(lambda: stored(service) == 1, "the count in the metrics again")
            await backend.notify(merchant)
            await until(lambda: stored(service) == 2, "a count that goes on")
            await stream.next("refresh", 2)
        assert service.workers == workers


def stored(service: Service) -> float:
    answer = plain_http.get(f"{service.url}/metrics")
    assert answer.status_code == 200, answer.text
    found = [line for line in answer.text.splitlines() if 'outcome="stored"' in line]
    return float(found[0].rpartition(" ")[2]) if found else -1


def test_a_file_system_that_takes_no_folder_is_one_sentence(redis: Redis) -> None:
    done = run(
        *("serve", "--port", "0", "--redis-url", redis.url),
        *("--subscribe-auth", "none", "--notify-keys", "none"),
        SSE_PUSH_RUN_FOLDER="/proc",
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "sse-push: expected to make a folder for temporary files below /proc, got 'No such file or"
        " directory': set run_folder, or the variable TMPDIR, to a folder that can be written"
    )
    assert "Traceback" not in done.stderr
