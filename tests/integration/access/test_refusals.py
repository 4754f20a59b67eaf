"""What the log says of requests that are refused."""

from __future__ import annotations

import re

import httpx2

from tests.harness.access import LIMITED_KEY
from tests.harness.service import KEY, Service
from tests.harness.tokens import SECRET, STRANGE_SECRET, token_of
from tests.harness.waiting import wait_for


async def test_each_refusal_is_logged_once_with_whom_it_is_about_and_without_a_secret(
    guarded: Service, client: httpx2.AsyncClient
) -> None:
    logged = len(guarded.log)
    key = {"Authorization": f"Bearer {LIMITED_KEY}"}
    token, strange = token_of("log-1"), token_of("log-3", key=STRANGE_SECRET)
    for _ in range(3):
        await client.post("/notify", headers={"Authorization": f"Bearer {SECRET}"})
        await client.post("/notify", headers=key, json={"merchant_id": "log-2"})
        await client.post("/revoke", headers=key, content=b"{")
        await client.post("/notify", headers={**key, "Origin": "https://evil.test"})
        await client.get("/events", params={"merchant_id": "log-3", "token": strange})
        await client.get("/events", params={"merchant_id": "log-4", "token": token})
        await client.get("/events", headers={"Origin": "https://elsewhere.test"})
        await client.get(f"/{token}")

    expected = [
        "key_unknown status=401 path=/notify who='address 127.0.0.1' setting=notify_keys",
        "merchant_not_of_key status=403 path=/notify who='key 2, merchant log-2' "
        "setting=notify_keys",
        "malformed_body status=400 path=/revoke who='key 2' setting=-",
        "page_not_backend status=403 path=/notify who='origin https://evil.test' setting=-",
        "token_unverified status=401 path=/events who='merchant log-3' setting=token_keys",
        "merchant_not_granted status=403 path=/events who='merchant log-4' setting=subscribe_auth",
        "origin_not_allowed status=403 path=/events who='origin https://elsewhere.test' "
        "setting=allowed_origins",
        "not_found status=404 path=- who='address 127.0.0.1' setting=-",
    ]
    wait_for(lambda: guarded.log[logged:].count(" message=refused ") >= 8, "the lines")
    lines = re.findall(r" message=refused reason=(.+) count=1$", guarded.log[logged:], re.MULTILINE)
    assert [line.replace('"', "'") for line in lines] == expected
    assert not any(each in guarded.log for each in (KEY, LIMITED_KEY, SECRET, token, strange))
