"""Last event IDs of browsers whose URL names no merchant: each counts for its own merchant."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.harness.access import COOKIE
from tests.harness.keys import stream_key
from tests.harness.redis import Redis
from tests.harness.service import Service
from tests.harness.stream import Publisher, Stream, open_stream, publishing
from tests.harness.tokens import token_of


@pytest.fixture
async def backend(guarded: Service) -> AsyncGenerator[Publisher]:
    async with publishing(guarded.url) as publisher:
        yield publisher


def cookie(merchant_id: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={token_of(merchant_id)}"}


async def answer(stream: Stream) -> tuple[str, bool]:
    """Return the last event ID after what is owed, and whether anything is.

    ``ready`` has an ID only if nothing is.
    """
    ready = await stream.next("ready")
    return (ready.id, False) if ready.id else ((await stream.next("refresh")).id, True)


async def test_a_cookie_that_names_another_merchant_makes_a_last_event_id_count_for_none(
    guarded: Service, redis: Redis, merchant: str
) -> None:
    """The two have an entry of one millisecond: to compare the IDs would show nothing missed."""
    other = f"{merchant}-other"
    for each in (merchant, other):
        redis.cli("XADD", stream_key(each), "1795454750480-0", "topic", "seats")
    async with open_stream(guarded.url, query="", headers=cookie(merchant)) as stream:
        seen, is_owed = await answer(stream)
    assert is_owed

    async with open_stream(guarded.url, "", seen, query="", headers=cookie(merchant)) as stream:
        assert await answer(stream) == (seen, False)
    async with open_stream(guarded.url, "", seen, query="", headers=cookie(other)) as stream:
        assert await answer(stream) == (seen.replace(merchant, other), True)

    assert seen.startswith(f"{merchant}@1795454750480-0.")


@pytest.mark.parametrize("of_url", [True, False])
async def test_an_id_without_a_name_is_a_position_only_if_the_url_names_the_merchant(
    guarded: Service, backend: Publisher, merchant: str, *, of_url: bool
) -> None:
    """The second one is a browser's that got its ID from a service before this one."""
    newest = await backend.notify(merchant)
    query = f"merchant_id={merchant}" if of_url else ""

    async with open_stream(
        guarded.url, "", newest, query=query, headers=cookie(merchant)
    ) as stream:
        last_event_id, is_owed = await answer(stream)

    assert is_owed is not of_url
    assert last_event_id == (newest if of_url else f"{merchant}@{newest}")


async def test_a_page_may_be_rendered_with_the_id_of_its_merchant(
    guarded: Service, backend: Publisher, merchant: str
) -> None:
    newest = await backend.notify(merchant)
    for query, header in (
        (f"last_event_id={merchant}@{newest}", None),
        (f"last_event_id={merchant}%40{newest}", f"{merchant}-other@{newest}"),
        (f"merchant_id={merchant}&last_event_id={merchant}@{newest}", None),
    ):
        async with open_stream(
            guarded.url, "", header, query=query, headers=cookie(merchant)
        ) as stream:
            assert (await answer(stream))[1] is False


async def test_a_page_may_be_rendered_with_the_ids_of_all_merchants_that_its_cookie_may_name(
    guarded: Service, backend: Publisher, merchant: str
) -> None:
    other = f"{merchant}-other"
    positions = [f"{each}@{await backend.notify(each)}" for each in (merchant, other)]
    query = "&".join(f"last_event_id={each}" for each in positions)
    for each, position in zip((merchant, other), positions, strict=True):
        async with open_stream(guarded.url, query=query, headers=cookie(each)) as stream:
            assert await answer(stream) == (position, False)


async def test_two_positions_of_one_merchant_in_a_url_are_unknown(
    guarded: Service, backend: Publisher, merchant: str
) -> None:
    """The greater one need not be the later one: IDs fall when a stream begins anew."""
    older, newest = [await backend.notify(merchant) for _ in range(2)]
    for first, second in ((older, newest), (newest, older)):
        query = f"merchant_id={merchant}&last_event_id={first}&last_event_id={second}"
        async with open_stream(guarded.url, query=query, headers=cookie(merchant)) as stream:
            await stream.next("ready")
            assert "missed" in (await stream.next("refresh")).data


async def test_browsers_of_one_merchant_get_their_ids_with_its_name_or_without(
    guarded: Service, backend: Publisher, merchant: str
) -> None:
    plain_query = f"merchant_id={merchant}"
    async with (
        open_stream(guarded.url, query="", headers=cookie(merchant)) as named,
        open_stream(guarded.url, query=plain_query, headers=cookie(merchant)) as plain,
    ):
        for stream in (named, plain):
            await stream.next("ready")

        event_id = await backend.notify(merchant, topic="seats")

        assert (await named.next("refresh", 2)).id == f"{merchant}@{event_id}"
        assert (await plain.next("refresh", 2)).id == event_id
