"""What doctor makes of what it sees: of the network, of first answers and of event streams."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from types import MappingProxyType

import pytest

from sse_push.doctor import judging
from sse_push.doctor.asking import Answer, Stage
from sse_push.doctor.faults import Fault, Result
from sse_push.doctor.network import Network
from sse_push.doctor.target import Target
from sse_push.sse_client import Event

HTTPS = Target.of("https://push.example")
HTTP = Target.of("http://push.example")
LOCAL = Target.of("http://127.0.0.1:8080")
SECURE = Network(
    addresses=("192.0.2.1",), tls="TLSv1.3", expires_in_s=9e6, is_http2=True, streams=9
)
STREAM = {"content-type": "text/event-stream", "cache-control": "no-store, no-transform"}


def answer_of(
    status: int = 200,
    body: object = b"",
    *events: tuple[float, str, object],
    stage: Stage = Stage.ENDED,
    headers: Mapping[str, str] = MappingProxyType({}),
    **more_headers: str,
) -> Answer:
    """Return an answer; its body and the data of its events are JSON, unless they are bytes."""
    named = {name.replace("_", "-"): value for name, value in more_headers.items()}
    got = Answer(stage, "1.1", status, {**headers, **named})
    got.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    got.events = [(at_s, Event(kind, json.dumps(data), "")) for at_s, kind, data in events]
    return got


def stream_of(*events: tuple[float, str, object], **options: object) -> Answer:
    """Return an event stream that is open."""
    got = answer_of(200, b"", *events, stage=Stage.OPEN)
    got.headers = {**STREAM, **{name: str(value) for name, value in options.items()}}
    return got


READY = (0.1, "ready", {"connection_id": "a-1", "heartbeat_s": 15, "merchant_id": "42"})


def faults_of(*results: Result) -> list[Fault]:
    return [each.fault for each in results if each.fault is not None]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            answer_of(503, b"<html>\r\n <b>no", content_type="text/html"),
            "503 text/html <html> <b>no",
        ),
        (answer_of(404, b"\xff" + b"x" * 999), f"404 \ufffd{'x' * 199}"),
        (Answer(), "no answer"),
        (Answer(Stage.ENDED), "an end without an answer"),
        (Answer(Stage.FAILED, trouble="no connection"), "no connection"),
    ],
)
def test_an_answer_is_shown_in_one_line_and_not_at_length(answer: Answer, text: str) -> None:
    assert str(answer) == text


# -- below HTTP


@pytest.mark.parametrize(
    ("target", "network", "fault"),
    [
        (HTTP, Network("no such name"), Fault.UNREACHABLE),
        (HTTPS, Network(certificate_trouble="self-signed"), Fault.CERTIFICATE),
        (HTTP, Network(addresses=("192.0.2.1",)), Fault.PLAIN_HTTP),
        (LOCAL, Network(), None),
        (HTTPS, SECURE, None),
        (HTTPS, replace(SECURE, expires_in_s=9e5), Fault.CERTIFICATE_EXPIRES),
        (HTTPS, replace(SECURE, is_http2=False), Fault.SIX_STREAMS),
    ],
)
def test_the_network_is_judged(target: Target, network: Network, fault: Fault | None) -> None:
    assert faults_of(*judging.judge_network(target, network)) == ([fault] if fault else [])


@pytest.mark.parametrize(("streams", "text"), [(128, "128 at once"), (None, "without a limit")])
def test_the_number_of_streams_of_a_browser_is_told(streams: int | None, text: str) -> None:
    results = judging.judge_network(HTTPS, replace(SECURE, streams=streams))

    assert results[-1].got.endswith(text)


# -- the first answers


def test_a_redirect_is_a_fault_and_tells_where_to() -> None:
    moved = judging.judge_redirect(answer_of(301, location="https://push.example/events"))

    assert moved.fault is Fault.REDIRECT
    assert "301 to https://push.example/events" in moved.got
    assert judging.judge_redirect(answer_of(302)).got == "302 to nowhere"
    assert judging.judge_redirect(answer_of(401)).fault is None


def test_http_1_0_shows_by_the_mark_or_by_the_answer_itself() -> None:
    marked, old = answer_of(401, x_sse_push_unchunked="1"), answer_of(200)
    old.version = "1.0"

    assert judging.judge_version([answer_of(), marked]).fault is Fault.HTTP_1_0
    assert judging.judge_version([old]).fault is Fault.HTTP_1_0
    assert judging.judge_version([answer_of()]).fault is None


@pytest.mark.parametrize(
    ("ahead_s", "fault", "text"),
    [(0, None, "less than"), (60, Fault.CLOCK, "ahead of"), (-60, Fault.CLOCK, "behind")],
)
def test_a_clock_that_differs_is_a_fault(ahead_s: int, fault: Fault | None, text: str) -> None:
    got = answer_of(200, date=formatdate(time.time() + ahead_s, usegmt=True))
    got.at = time.time()

    result = judging.judge_clock(got)

    assert result.fault is fault
    assert text in result.got


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 99999 99:99:99 GMT", "\x1b[31m"])
def test_a_date_that_is_none_is_no_fault(date: str) -> None:
    result = judging.judge_clock(answer_of(200, date=date))

    assert (result.fault, result.is_note) == (None, True)


# -- the beginning of a stream

WAITING = Answer()
SOFT = answer_of(200, b"", (0.1, "goodbye", {"reason": "full"}), content_type="text/event-stream")
DOWN = answer_of(
    200, b"", (0.1, "goodbye", {"reason": "upstream_unavailable"}), content_type="text/event-stream"
)
EMPTY = answer_of(200, b"", (0.1, "message", {}), content_type="text/event-stream")


@pytest.mark.parametrize(
    ("answer", "plain", "head", "fault"),
    [
        (stream_of(READY), None, answer_of(), None),
        (WAITING, stream_of(READY), answer_of(), Fault.COMPRESSION),
        (WAITING, WAITING, answer_of(), Fault.BUFFERING),
        (WAITING, WAITING, WAITING, Fault.NO_ANSWER),
        (WAITING, None, WAITING, Fault.NO_ANSWER),
        (Answer(Stage.FAILED, trouble="refused"), None, answer_of(), Fault.NO_ANSWER),
        (Answer(Stage.ENDED), None, answer_of(), Fault.NO_ANSWER),
        (answer_of(421), None, answer_of(), Fault.HOST),
        (answer_of(400), None, answer_of(), Fault.REFUSED),
        (answer_of(401), None, answer_of(), Fault.REFUSED),
        (answer_of(403), None, answer_of(), Fault.REFUSED),
        (answer_of(404), None, answer_of(), Fault.WRONG_ANSWER),
        (answer_of(200, content_type="text/html"), None, answer_of(), Fault.WRONG_ANSWER),
        (answer_of(429), None, answer_of(), Fault.HARD_ANSWER),
        (answer_of(500), None, answer_of(), Fault.HARD_ANSWER),
        (answer_of(502), None, answer_of(), Fault.SERVICE_DOWN),
        (answer_of(503), None, answer_of(), Fault.SERVICE_DOWN),
        (DOWN, None, answer_of(), Fault.SERVICE_DOWN),
        (SOFT, None, answer_of(), Fault.NOT_SERVED),
        (EMPTY, None, answer_of(), Fault.NOT_SERVED),
        (stream_of(), None, answer_of(), Fault.BUFFERING),
        (answer_of(200, content_type="text/event-stream"), None, answer_of(), Fault.NO_ANSWER),
        (stream_of(READY, **{"content-encoding": "br"}), None, answer_of(), Fault.COMPRESSION),
    ],
)
def test_the_beginning_of_a_stream_is_judged(
    answer: Answer, plain: Answer | None, head: Answer, fault: Fault | None
) -> None:
    assert judging.judge_open(answer, plain, head, 10).fault is fault


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("no-store, no-transform", None),
        ("No-Transform,no-store , private", None),
        ("no-store", Fault.CACHE_CONTROL),
        ("max-age=60", Fault.CACHE_CONTROL),
    ],
)
def test_a_changed_cache_control_is_a_fault(value: str, fault: Fault | None) -> None:
    assert judging.judge_headers(stream_of(**{"cache-control": value})).fault is fault
    assert judging.judge_headers(answer_of(200)).fault is Fault.CACHE_CONTROL


# -- several streams


def test_a_stream_that_is_served_twice_is_a_fault() -> None:
    other = (0.1, "ready", {"connection_id": "a-2"})

    assert judging.judge_cache(stream_of(READY), stream_of(READY, age=7)).fault is Fault.CACHE
    assert "Age: 7" in judging.judge_cache(stream_of(READY), stream_of(READY, age=7)).got
    assert judging.judge_cache(stream_of(READY), stream_of(READY)).fault is Fault.CACHE
    assert judging.judge_cache(stream_of(READY), stream_of(other)).fault is None
    assert judging.judge_cache(stream_of(), stream_of()).fault is None


def test_a_last_event_id_that_is_lost_is_a_fault() -> None:
    new = (0.1, "refresh", {"reason": "connected"})
    missed = (0.1, "refresh", {"reason": "missed"})

    lost, kept, ended = (
        judging.judge_resumption(each, "7-0.abcd")
        for each in (stream_of(READY, new), stream_of(READY, missed), SOFT)
    )

    assert lost.fault is Fault.LAST_EVENT_ID
    assert kept.fault is None
    assert (ended.fault, ended.is_note) == (None, True)


def test_tabs_are_served_or_come_back_later() -> None:
    served = judging.judge_tabs([stream_of(READY)] * 8)
    later = judging.judge_tabs([stream_of(READY), SOFT])
    never = judging.judge_tabs([stream_of(READY), answer_of(503), SOFT])

    assert (served.fault, served.is_note) == (None, False)
    assert (later.fault, later.is_note) == (None, True)
    assert "full" in later.got
    assert never.fault is Fault.HARD_ANSWER


# -- silence


def silence(answer: Answer, listened_s: float = 31) -> Result:
    return judging.judge_silence(answer, 15, listened_s)


def ended(answer: Answer, at_s: float) -> Answer:
    answer.stage, answer.ended_s = Stage.ENDED, at_s
    return answer


HEARTBEATS: tuple[tuple[float, str, object], ...] = (
    (15.0, "heartbeat", {}),
    (30.0, "heartbeat", {}),
)


def test_silence_that_ends_a_stream_is_a_fault() -> None:
    cut = silence(ended(stream_of(READY), 5.1))
    left = silence(ended(stream_of(READY, (60.0, "goodbye", {"reason": "connection_age"})), 60.0))

    assert cut.fault is Fault.IDLE_CUT
    assert "after 5.1 s, 5.0 s of them silent" in cut.got
    assert (left.fault, left.is_note) == (None, True)
    assert "connection_age" in left.got


def test_heartbeats_that_do_not_arrive_are_held_back() -> None:
    assert silence(stream_of(READY)).fault is Fault.BUFFERING
    assert silence(stream_of(READY), 20).fault is None
    assert silence(stream_of(READY, *HEARTBEATS)).fault is None
