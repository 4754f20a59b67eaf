from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import pytest

from sse_push.access.origin import Origins
from sse_push.errors import Refusal, RefusalReason
from sse_push.http.service import State, build, report, room_of, token_rules
from sse_push.notification import EntryId
from sse_push.runtime.log_pace import INTERVAL_S
from sse_push.runtime.refusals import Refusals
from sse_push.settings import Settings
from sse_push.stream import Follower
from tests.harness.clock import ManualClock
from tests.harness.tokens import SECRET
from tests.harness.waiting import until

NOWHERE = "redis://127.0.0.1:1"
TOKENS: dict[str, object] = {"subscribe_auth": "token", "token_keys": SECRET}


def settings_of(**settings: object) -> Settings:
    common = {"redis_url": NOWHERE, "notify_keys": "none", "subscribe_auth": "none"}
    return Settings.load(**{**common, **settings})


def state_of(folder: Path, **settings: object) -> State:
    made = settings_of(**settings)
    return build(made, token_rules(made), Origins(()), folder, b"{}")


def follower_of(state: State) -> Follower:
    follower = state["follower"]
    assert isinstance(follower, Follower)
    return follower


async def test_every_refusal_is_counted_from_zero(tmp_path: Path) -> None:
    refusals = state_of(tmp_path)["refusals"]

    assert refusals.codes == dict.fromkeys(Refusal, 0)
    assert refusals.reasons == dict.fromkeys(RefusalReason, 0)


async def test_a_new_worker_is_on_the_board_and_has_seen_no_probe(tmp_path: Path) -> None:
    assert state_of(tmp_path)["board"].read() == (1, math.inf)


async def test_the_delivery_age_is_observed_as_a_fan_out_begins(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    on_fan_out = state["hub"].on_fan_out
    assert on_fan_out is not None

    on_fan_out(EntryId(1, 0))
    state["metrics"].update()

    content, _ = state["metrics"].render("text/plain")
    assert b"sse_push_delivery_age_seconds_count 1.0\n" in content


def test_tokens_have_rules_only_where_they_decide_who_may_listen() -> None:
    rules = token_rules(settings_of(**TOKENS, token_audience="a", token_leeway_s=7))

    assert token_rules(settings_of()) is None
    assert rules is not None
    assert [key.algorithm for key in rules.keys] == ["HS256"]
    assert (rules.audience, rules.issuer) == ("a", None)
    assert (rules.leeway_s, rules.max_lifetime_s) == (7, 3600)


def test_the_room_has_the_limits_of_the_settings() -> None:
    room = room_of(settings_of(max_connections=3, max_connections_per_merchant=2))

    assert (room._limit, room._merchant_limit, room._address_limit) == (3, 2, 0)


@pytest.mark.parametrize(("settings", "is_known"), [({}, True), (TOKENS, False)])
async def test_a_worker_that_may_let_a_revoked_token_in_is_never_young(
    tmp_path: Path, settings: dict[str, object], *, is_known: bool
) -> None:
    state = state_of(tmp_path, **settings)
    follower_of(state).probe.passed_at = time.monotonic()

    reporting = asyncio.create_task(report(state, lambda: None))
    await asyncio.sleep(0)
    reporting.cancel()

    assert (state["board"].read().worst_age_s < 60) is is_known


async def test_a_worker_tells_that_it_is_well_only_while_it_is(tmp_path: Path) -> None:
    state = state_of(tmp_path, probe_interval_s=0.05)
    told: list[float] = []

    def tell() -> None:
        told.append(time.monotonic())

    reporting = asyncio.create_task(report(state, tell))
    await asyncio.sleep(0)
    before = len(told)
    follower_of(state).probe.interrupted(None)
    await until(lambda: len(told) >= 2, "a worker that is well again")
    reporting.cancel()

    assert before == 0


async def test_refusals_are_logged_when_their_minute_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    state = state_of(tmp_path, probe_interval_s=0.05)
    state["refusals"] = refusals = Refusals(clock.time)
    for _ in range(3):
        refusals.add(RefusalReason.KEY_UNKNOWN, "/notify", "address 192.0.2.1")
    clock.advance(INTERVAL_S)

    reporting = asyncio.create_task(report(state, lambda: None))
    await until(lambda: "setting=notify_keys count=2" in caplog.text, "the count of a minute")
    reporting.cancel()
