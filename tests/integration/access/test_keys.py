"""Notify keys that are limited to merchants, and a file of token keys that changes."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2
import pytest

from tests.harness.access import LIMITED_KEY, refused
from tests.harness.redis import Redis
from tests.harness.service import KEY, Service
from tests.harness.stream import Publisher
from tests.harness.tokens import (
    private_key,
    public_pem,
    token_of,
)
from tests.harness.waiting import wait_for

# -- notify keys


@pytest.mark.parametrize("merchant_id", ["42", 42, "shop-1", "shop-"])
async def test_a_key_notifies_its_merchants(guarded: Service, merchant_id: object) -> None:
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(json={"merchant_id": merchant_id})
    await backend.close()

    assert answer.status_code == 200


@pytest.mark.parametrize("merchant_id", ["43", 421, "4", "shop", "Shop-1", "a-shop-1"])
@pytest.mark.parametrize("exists", [False, True])
async def test_a_key_does_not_notify_another_merchant_whether_it_exists_or_not(
    redis: Redis, guarded: Service, merchant_id: object, *, exists: bool
) -> None:
    key = f"sse_push:{{{merchant_id}}}"
    redis.cli("DEL", key)
    if exists:
        redis.cli("XADD", key, "*", "topic", "seats")
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(json={"merchant_id": merchant_id})
    await backend.close()

    assert refused(answer) == (
        403,
        "forbidden",
        f"expected a key that may notify '{merchant_id}', got another one",
    )
    assert redis.cli("XLEN", key) == str(int(exists))
    assert LIMITED_KEY not in answer.text


async def test_each_item_of_an_array_is_authorized_by_itself(
    redis: Redis, guarded: Service
) -> None:
    redis.cli("DEL", "sse_push:{43}")
    backend = Publisher(guarded.url, LIMITED_KEY)

    answer = await backend.post(
        json=[{"merchant_id": "42"}, {"merchant_id": "43"}, {}, {"merchant_id": "shop-2"}]
    )
    await backend.close()

    first, second, third, fourth = answer.json()
    assert answer.status_code == 200
    assert [*first, *fourth] == ["id", "id"]
    assert second == {
        "error": "forbidden",
        "detail": "expected a key that may notify '43', got another one",
    }
    assert third["error"] == "malformed"
    assert redis.cli("XLEN", "sse_push:{43}") == "0"


async def test_a_repeated_key_is_malformed(client: httpx2.AsyncClient) -> None:
    headers = [("Authorization", f"Bearer {KEY}")] * 2

    answer = await client.post("/notify", json={"merchant_id": "42"}, headers=headers)

    assert refused(answer) == (
        400,
        "malformed",
        "expected the header Authorization once, got several",
    )


# -- a file of token keys


def test_a_rolling_restart_reads_the_keys_again_and_is_given_up_if_they_are_broken(
    redis: Redis, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.pem"
    keys.write_text(public_pem("RS256"))
    service = Service.start(
        tmp_path,
        redis.url,
        *("--subscribe-auth", "token", "--workers", "2"),
        drain_s=0.3,
        token_keys_file=keys,
        token_algorithms="RS256,ES256",
    )

    def statuses(algorithm: str) -> set[int]:
        token = token_of(algorithm=algorithm, key=private_key(algorithm), aud=..., iss=...)
        return {httpx2.head(f"{service.url}/events?token={token}").status_code for _ in range(8)}

    try:
        first = set(service.workers)
        before = statuses("RS256"), statuses("ES256")

        keys.write_text(public_pem("RS256") + public_pem("ES256"))
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(set(service.workers) - first) == 2, "new workers")
        wait_for(lambda: not set(service.workers) & first, "the old ones' end")
        after = statuses("RS256"), statuses("ES256")

        keys.write_text("broken")
        second = set(service.workers)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "restart abandoned" in service.log, "the restart to be given up")
        with_broken = statuses("RS256"), set(service.workers)
    finally:
        status = service.stop()

    assert before == ({200}, {401})
    assert after == ({200}, {200})
    assert with_broken == ({200}, second)
    assert service.log.count("expected a JWK Set (JSON) or public keys (PEM), got neither") == 1
    assert "Traceback" not in service.log
    assert status == 0
