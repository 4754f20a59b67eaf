"""The checker beside a server that breaks each promise once, and beside the real service.

The fake server writes bytes: an exact copy of what the service would send, but for one breach.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.checker.browser import Browser, Server
from tests.checker.history import Answer, End, Outcome, Position, Witness
from tests.checker.judge import Verdict, judge
from tests.checker.terms import Promise, Terms
from tests.harness import plain_http
from tests.harness.service import Service
from tests.harness.waiting import SECOND, START_S, until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)
LAST = b"0\r\n\r\n"
MERCHANT = "42"

Piece = bytes | None
"""Bytes to write; None closes the connection."""


def chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(kind: str, entry_id: str | None = None, **said: object) -> bytes:
    retry = "retry: 10\n" if kind in ("ready", "goodbye") else ""
    line = "" if entry_id is None else f"id: {entry_id}\n"
    return chunk(f"{retry}{line}event: {kind}\ndata: {json.dumps(said)}\n\n")


def ready(entry_id: str | None = None) -> bytes:
    return event("ready", entry_id, merchant_id=MERCHANT, heartbeat_s=3, connection_id="1-1")


def refresh(entry_id: str | None, merchant_id: str = MERCHANT, **said: object) -> bytes:
    return event("refresh", entry_id, merchant_id=merchant_id, **said)


FIRST = refresh("10-0", reason="connected")
ONE = refresh("11-0", topic="seats", data={"n": 1}, by="n1")
TWO = refresh("12-0", topic="seats", data={"n": 2}, by="n2")
HEARTBEAT = event("heartbeat")
GOODBYE = event("goodbye", reason="connection_age")

BEFORE: list[Piece] = [HEAD, ready(), FIRST, ONE, HEARTBEAT, GOODBYE, LAST, None]
AFTER: list[Piece] = [HEAD, ready("11-0"), TWO]
"""The two connections of a browser to which nothing wrong happens."""

ANSWERS = (
    ("42", "10-0", "seats", 0, "n0"),
    ("42", "11-0", "seats", 1, "n1"),
    ("42", "12-0", "seats", 2, "n2"),
    ("43", "12-1", "seats", 3, "n3"),
)


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One promise broken: what the server sends instead, or what the figures are."""

    promise: Promise
    before: list[Piece] = field(default_factory=lambda: BEFORE)
    after: list[Piece] = field(default_factory=lambda: AFTER)
    terms: dict[str, object] = field(default_factory=dict)
    judged_after_s: float = 0.0
    answer: dict[str, object] = field(default_factory=dict)
    """What is otherwise with the answer to n2."""


def instead(pieces: Sequence[Piece], piece: Piece, *others: Piece) -> list[Piece]:
    """Return the pieces with others in the place of one."""
    at = pieces.index(piece)
    return [*pieces[:at], *others, *pieces[at + 1 :]]


BREACHES: dict[str, Breach] = {
    "a refresh is lost": Breach(promise=Promise.HEARD, after=instead(AFTER, TWO)),
    "a refresh of another topic is no refresh": Breach(
        promise=Promise.HEARD, after=instead(AFTER, TWO, refresh("12-0", topic="prices"))
    ),
    "a refresh is late": Breach(
        promise=Promise.HEARD, terms={"within_s": 1.0}, answer={"answered_at": 0.0}
    ),
    "an ID comes before its refresh": Breach(
        promise=Promise.ID,
        after=instead(instead(AFTER, ready("11-0"), ready("12-0")), TWO, refresh("13-0")),
    ),
    "an ID of another history is taken for known": Breach(
        promise=Promise.ID,
        before=instead(BEFORE, ONE, refresh("11-0.a", reason="resync")),
        after=[HEAD, ready("13-0.b"), refresh("14-0.b")],
    ),
    "an ID falls": Breach(
        promise=Promise.ORDER, before=instead(BEFORE, ONE, ONE, refresh("9-0", topic="seats"))
    ),
    "an ID is repeated": Breach(
        promise=Promise.ORDER, before=instead(BEFORE, ONE, ONE, refresh("11-0"))
    ),
    "an ID falls between two connections": Breach(
        promise=Promise.ORDER,
        after=instead(instead(AFTER, ready("11-0"), ready()), TWO, refresh("9-0"), TWO),
    ),
    "a history begins unannounced": Breach(
        promise=Promise.ORDER,
        before=instead(BEFORE, ONE, ONE, refresh("13-0.b")),
        after=[HEAD, ready(), refresh("12-1.b", reason="missed")],
    ),
    "Redis loses data and nobody says so": Breach(promise=Promise.LOSS, terms={"losses": [1e12]}),
    "what was refused is told": Breach(
        promise=Promise.HONEST, answer={"outcome": Outcome.REFUSED, "position": None}
    ),
    "an ID is given twice": Breach(
        promise=Promise.HONEST,
        before=instead(BEFORE, ONE, refresh("11-0")),
        after=[HEAD, ready("11-0"), refresh("12-0")],
        answer={"position": Position("", 11, 0)},
    ),
    "an answer is late": Breach(
        promise=Promise.BOUNDED, terms={"answer_s": 3}, answer={"took_s": 9.0}
    ),
    "an event of another merchant": Breach(
        promise=Promise.ISOLATION, after=[*AFTER, refresh("13-0", "43")]
    ),
    "a refresh that another merchant caused": Breach(
        promise=Promise.ISOLATION, after=[*AFTER, refresh("13-0", by="n3")]
    ),
    "a refresh that nobody caused": Breach(
        promise=Promise.ISOLATION,
        after=[*AFTER, refresh("13-0")],
        terms={"is_only_backend": True},
    ),
    "silence": Breach(promise=Promise.SIGNS, judged_after_s=60, terms={"heartbeat_s": 3.0}),
    "another heartbeat than was set": Breach(promise=Promise.SIGNS, terms={"heartbeat_s": 4.0}),
    "a connection for ever": Breach(
        promise=Promise.BOUNDS, judged_after_s=60, terms={"age_s": 30.0}
    ),
    "a torn chunk": Breach(
        promise=Promise.END, before=instead(BEFORE, GOODBYE, GOODBYE[:-9], None)
    ),
    "no last chunk": Breach(promise=Promise.END, before=instead(BEFORE, LAST)),
    "no goodbye": Breach(promise=Promise.END, before=instead(BEFORE, GOODBYE)),
    "a goodbye without a reason": Breach(
        promise=Promise.END,
        before=instead(BEFORE, GOODBYE, chunk("retry: 10\nevent: goodbye\ndata: {}\n\n")),
    ),
    "a goodbye without a reconnection time": Breach(
        promise=Promise.FORM,
        before=instead(
            BEFORE, GOODBYE, chunk('event: goodbye\ndata: {"reason": "connection_age"}\n\n')
        ),
    ),
    "an event after goodbye": Breach(
        promise=Promise.END, before=instead(BEFORE, GOODBYE, GOODBYE, HEARTBEAT)
    ),
    "half an event": Breach(
        promise=Promise.END, before=instead(BEFORE, LAST, chunk("event: refresh\n"), LAST)
    ),
    "data of two notifications": Breach(
        promise=Promise.DATA, before=[HEAD, ready(), FIRST, TWO], after=[]
    ),
    "data of another notification": Breach(
        promise=Promise.DATA,
        after=instead(AFTER, TWO, refresh("12-0", topic="seats", data={"n": 1}, by="n2")),
    ),
    "data without an ID": Breach(
        promise=Promise.DATA,
        before=instead(BEFORE, ONE, refresh(None, data={"n": 1}), ONE),
    ),
    "a chunk that is longer than it says": Breach(
        promise=Promise.FORM, before=instead(BEFORE, GOODBYE, b"5\r\n" + b"x" * 10)
    ),
    "no ready": Breach(promise=Promise.FORM, before=instead(BEFORE, ready())),
    "an event that is not documented": Breach(
        promise=Promise.FORM, before=instead(BEFORE, HEARTBEAT, event("message"))
    ),
    "an ID that is none": Breach(
        promise=Promise.FORM, before=instead(BEFORE, HEARTBEAT, HEARTBEAT, refresh("x"), ONE[:0])
    ),
    "an answer that ends an EventSource": Breach(
        promise=Promise.COMES_BACK,
        before=[HEAD, ready(), FIRST, ONE, TWO, GOODBYE, LAST, None],
        after=[NOT_FOUND, None],
    ),
}


@asynccontextmanager
async def fake(*scripts: Sequence[Piece]) -> AsyncGenerator[Server]:
    """Serve each connection with the next script; later connections get a head and no more."""
    left = list(scripts)
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        for piece in left.pop(0) if left else [HEAD]:
            if piece is None:
                writer.close()
                return
            writer.write(piece)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield Server("127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            for writer in open_writers:
                writer.close()


async def listen(*scripts: list[Piece]) -> Witness:
    """Return what a browser receives; its last connection is open still, if it was not closed."""
    expected = [script for script in scripts if script]
    async with fake(*expected) as server:
        browser = Browser(server, MERCHANT, "a browser")
        running = asyncio.create_task(browser.run())
        visits = browser.witness.visits

        def is_done() -> bool:
            last = expected[-1]
            count = sum(piece is not None and b"event: " in piece for piece in last)
            if last[-1] is None:
                return (
                    len(visits) >= len(expected) and visits[len(expected) - 1].end is not End.OPEN
                )
            return len(visits) == len(expected) and len(visits[-1].events) == count

        try:
            await until(is_done, "everything to be received")
            heard = [replace(visit, events=list(visit.events)) for visit in visits]
        finally:
            running.cancel()
            await asyncio.wait([running])
    return Witness("a browser", MERCHANT, heard[: len(expected)])


def answers(at: float, **other: object) -> list[Answer]:
    made = [
        Answer(
            merchant,
            at,
            at,
            Outcome.ACCEPTED,
            Position.parse(entry_id),
            topic,
            {"n": number},
            by,
        )
        for merchant, entry_id, topic, number, by in ANSWERS
    ]
    changed: Any = other
    made[2] = replace(made[2], **changed)
    return made


def verdict_of(witness: Witness, breach: Breach | None = None) -> Verdict:
    wrong = breach or Breach(promise=Promise.FORM)
    terms = {"within_s": 60.0, "slack_s": 5.0, **wrong.terms}
    return judge(
        [witness],
        answers(witness.visits[0].began_at, **wrong.answer),
        Terms.from_json(terms),
        time.monotonic() + wrong.judged_after_s,
    )


async def test_a_service_that_keeps_its_promises_is_not_accused() -> None:
    verdict = verdict_of(await listen(BEFORE, AFTER))

    assert (verdict.wrong, verdict.lost) == ([], 0)
    assert (verdict.connections, verdict.refreshes, verdict.accepted) == (2, 3, 4)


@pytest.mark.parametrize("name", BREACHES)
async def test_a_breach_is_named_and_nothing_else_is(name: str) -> None:
    breach = BREACHES[name]

    verdict = verdict_of(await listen(breach.before, breach.after), breach)

    assert set(verdict.breaches) == {breach.promise}, verdict.wrong
    assert str(breach.promise) in verdict.wrong[0]


async def test_a_cut_is_tolerated_where_something_was_broken_on_purpose() -> None:
    verdict = verdict_of(
        await listen(BREACHES["a torn chunk"].before, AFTER),
        Breach(promise=Promise.END, terms={"may_cut": True}),
    )

    assert verdict.wrong == []


async def test_a_pause_of_the_checker_is_no_silence_of_the_service() -> None:
    now = time.monotonic()
    breach = replace(
        BREACHES["silence"],
        terms={"heartbeat_s": 3.0, "pauses": [(now - 100, now + 100)]},
    )

    assert verdict_of(await listen(BEFORE, AFTER), breach).wrong == []


async def test_a_resync_begins_another_history_whose_ids_are_lower() -> None:
    lower = refresh("5-0", reason="resync")
    lost_at = time.monotonic()

    witness = await listen([*AFTER[:1], ready(), FIRST, ONE, lower, refresh("6-0")])
    terms = Terms(within_s=60, slack_s=5, losses=[lost_at])

    assert judge([witness], answers(lost_at - 1), terms, time.monotonic()).wrong == []


async def test_a_history_with_a_name_may_follow_another_if_a_resync_says_so() -> None:
    resync = refresh("11-0.b", reason="resync")
    named = refresh("12-0.b", topic="seats", data={"n": 2}, by="n2")

    witness = await listen(
        instead(instead(BEFORE, FIRST, refresh("10-0.a", reason="connected")), ONE, resync),
        instead(instead(AFTER, ready("11-0"), ready("11-0.b")), TWO, named),
    )
    at = witness.visits[0].began_at
    found = [
        replace(each, position=each.position and each.position._replace(history=name))
        for each, name in zip(answers(at), "aabb", strict=True)
    ]

    assert judge([witness], found, Terms(within_s=60, slack_s=5), time.monotonic()).wrong == []


async def test_a_browser_asks_again_with_its_last_event_id() -> None:
    witness = await listen(BEFORE, AFTER)

    assert [visit.last_event_id for visit in witness.visits] == ["", "11-0"]


# -- as a program


def run(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.checker", *arguments],
        input=lines,
        capture_output=True,
        text=True,
        timeout=START_S + 60 * SECOND,
        check=False,
    )


@pytest.mark.redis
def test_the_real_service_keeps_its_promises(service: Service) -> None:
    done = run(
        *(service.url, "--key", service.key, "--seconds", "3", "--rate", "50"),
        *("--drop-every", "0.3", "--within", str(10 * SECOND)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise was kept" in done.stdout


@pytest.mark.redis
def test_a_notification_that_no_browser_was_told_of_is_a_loss(service: Service) -> None:
    now = time.monotonic()
    told: dict[str, object] = {"merchant_id": "checked", "asked_at": now, "answered_at": now}
    accepted = plain_http.post(
        f"{service.url}/notify",
        json={"merchant_id": "other"},
        headers={"Authorization": f"Bearer {service.key}"},
    )
    history = accepted.json()["id"].partition(".")[2]
    lines = [
        {"answer": {**told, "outcome": "accepted", "id": f"99999999999999-0.{history}"}},
        {"judge": {"within_s": 0.1, "slack_s": 0.1}},
        {"judge": {"within_s": 0.1, "slack_s": 0.2}},
    ]

    done = run(
        *(service.url, "--controlled", "--merchants", "checked"),
        lines="\n".join(map(json.dumps, lines)),
    )

    opened, *judged = map(json.loads, done.stdout.splitlines())
    assert (opened, [each["verdict"]["lost"] for each in judged]) == ({"open": 2}, [2, 2])
    assert "was accepted, and never told" in judged[0]["verdict"]["wrong"][0]
    assert done.returncode == 1


@pytest.mark.redis
def test_a_wrong_key_is_no_proof(service: Service) -> None:
    done = run(service.url, "--key", "wrong", "--seconds", "0.2")

    assert done.returncode == 1
    assert "nothing was heard" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ftp://x"], "expected a URL"),
        (["http://127.0.0.1:1", "--controlled"], "--controlled needs --merchants"),
    ],
)
def test_a_wrong_usage_is_said(arguments: list[str], words: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert words in done.stderr
