"""The service in a server that is not its own: uvicorn, as its command line starts it."""

from __future__ import annotations

from pathlib import Path

from tests.harness.programs import spawn, variables
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher, open_stream
from tests.harness.waiting import free_port


async def test_uvicorn_serves_by_the_settings_of_the_environment(
    redis: Redis, tmp_path: Path, merchant: str
) -> None:
    port = free_port()
    environ = variables(
        {
            "redis_url": redis.url,
            "subscribe_auth": "none",
            "notify_keys": "none",
            "probe_interval_s": 0.1,
            "drain_s": 0.1,
        }
    )
    command = ["sse_push.asgi:app", "--port", str(port), "--no-access-log"]

    started = spawn(tmp_path, "uvicorn", command, module="uvicorn", environ=environ)
    with Service(*started, port) as served:
        served.wait_ready()
        publisher = Publisher(served.url)
        async with open_stream(served.url, merchant) as stream:
            await stream.next("refresh")
            entry_id = await publisher.notify(merchant)
            told = await stream.next("refresh", 2)
            served.process.terminate()
            await stream.next("goodbye")
            await stream.wait_complete()
        await publisher.close()
        served.stop()

    assert told.id == entry_id
    assert stream.headers["connection"] == "close", "the fast way"
    served.assert_no_errors()
    assert "message=drained" in served.log
    assert 'may listen and notify" host="that of your server"' in served.log
