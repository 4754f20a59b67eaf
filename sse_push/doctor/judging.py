"""What the network, the first answers and the streams show: from observations to results.

Knows what the service sends, and what a browser makes of it. Does not ask anything itself, nor know
who may listen or notify (``rights``).
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from sse_push.doctor.asking import ACCEPT_ENCODING, Answer, Stage
from sse_push.doctor.faults import Fault, Result
from sse_push.doctor.network import Network
from sse_push.doctor.reading import object_of, ready_of, reason_of
from sse_push.doctor.target import Target
from sse_push.errors import EndReason, Refusal
from sse_push.event_stream.shared import HEADERS
from sse_push.runtime.uvicorn import UNCHUNKED_HEADER
from sse_push.settings import Settings

EXPIRES_SOON_S = 14 * 86_400.0
"""How long before its end a certificate should have been renewed."""

HEARTBEATS_LATE = 1.5
"""How many heartbeats may pass until one arrives."""

_GATEWAY = (502, 503, 504)


# -- below HTTP


def judge_network(target: Target, network: Network) -> list[Result]:
    """Judge the name, the connection, TLS, and how many streams a browser gets."""
    address = target.address
    tried = f"connect to {address.netloc}"
    at = f" ({', '.join(network.addresses)})" if network.addresses else ""
    if network.trouble:
        return [Result("address", tried, f"{network.trouble}{at}", Fault.UNREACHABLE)]
    if network.certificate_trouble:
        return [Result("tls", f"{tried} by TLS", network.certificate_trouble, Fault.CERTIFICATE)]
    found = [Result("address", tried, f"a connection in {network.took_s * 1000:.0f} ms{at}")]
    if not address.is_tls:
        got = "HTTP without TLS, so HTTP/1.1: six streams for a browser, all tabs together"
        fault = None if address.is_local else Fault.PLAIN_HTTP
        return [*found, Result("tls", tried, got, fault, is_note=True)]
    days = network.expires_in_s / 86_400
    is_soon = network.expires_in_s < EXPIRES_SOON_S
    text = f"{network.tls}, a certificate that is valid for {days:.0f} days"
    fault = Fault.CERTIFICATE_EXPIRES if is_soon else None
    found.append(Result("tls", f"{tried} by TLS", text, fault))
    tried = "offer HTTP/2 and HTTP/1.1, as browsers do"
    if not network.is_http2:
        return [*found, Result("streams", tried, "HTTP/1.1", Fault.SIX_STREAMS)]
    limit = "without a limit" if network.streams is None else f"{network.streams} at once"
    got = f"HTTP/2: all tabs of a browser share a connection, requests {limit}"
    return [*found, Result("streams", tried, got)]


# -- the first answers


def judge_redirect(answer: Answer) -> Result:
    """Judge whether the address of the stream is its last one."""
    tried = "GET /events without credentials"
    if 300 <= answer.status < 400:
        got = f"{answer.status} to {answer.headers.get('location', 'nowhere')}"
        return Result("redirect", tried, got, Fault.REDIRECT)
    return Result("redirect", tried, "no redirect")


def judge_version(answers: Sequence[Answer]) -> Result:
    """Judge how a proxy asks the service, by the mark on any answer of the service."""
    tried = "ask for the mark of an answer to HTTP/1.0"
    marked = [each for each in answers if UNCHUNKED_HEADER.lower() in each.headers]
    if marked or any(each.version == "1.0" for each in answers):
        got = f"{UNCHUNKED_HEADER}: a proxy asks the service by HTTP/1.0" if marked else "HTTP/1.0"
        return Result("version", tried, got, Fault.HTTP_1_0)
    return Result("version", tried, "no such mark: the service is asked by HTTP/1.1")


def judge_clock(answer: Answer) -> Result:
    """Compare the clock of the server with that of this machine, by the header Date."""
    tried, text = "compare the header Date with this clock", answer.headers.get("date", "")
    try:
        ahead_s = parsedate_to_datetime(text).timestamp() - answer.at
    except (ValueError, TypeError, IndexError, OverflowError):
        return Result("clock", tried, f"no date that can be read: {text[:60]!r}", is_note=True)
    leeway_s = float(Settings.model_fields["token_leeway_s"].default)
    way = "ahead of" if ahead_s > 0 else "behind"
    if abs(ahead_s) > leeway_s + 1:  # the header has whole seconds
        return Result("clock", tried, f"{abs(ahead_s):.0f} s {way} this one", Fault.CLOCK)
    return Result("clock", tried, "less than a leeway of tokens apart")


def judge_open(answer: Answer, plain: Answer | None, head: Answer, limit_s: float) -> Result:
    """Judge whether an event stream begins.

    ``head``: the answer to HEAD. ``plain``: the answer without Accept-Encoding, where the first one
    has no head, or a body that is no readable text.
    """
    tried = f"GET /events with Accept-Encoding: {ACCEPT_ENCODING}"
    if answer.stage is Stage.WAITING:
        return _judge_silent(tried, plain, head, limit_s)
    if answer.status == 0:
        return Result("stream", tried, str(answer), Fault.NO_ANSWER)
    if not answer.is_event_stream:
        return Result("stream", tried, str(answer), _fault_of(answer))
    if "content-encoding" in answer.headers:
        got = f"Content-Encoding: {answer.headers['content-encoding']}"
        return Result("compression", tried, got, Fault.COMPRESSION)
    return _judge_first_event(tried, answer, limit_s)


def _judge_silent(tried: str, plain: Answer | None, head: Answer, limit_s: float) -> Result:
    got = f"no answer within {limit_s:g} s"
    if plain is not None and plain.status:
        got += ", and one at once without Accept-Encoding"
        return Result("compression", tried, got, Fault.COMPRESSION)
    if head.status:
        got += f", and {head.status} at once to HEAD"
        return Result("first byte", tried, got, Fault.BUFFERING)
    return Result("stream", tried, got, Fault.NO_ANSWER)


def _judge_first_event(tried: str, answer: Answer, limit_s: float) -> Result:
    if not answer.events and answer.has_ended:
        got = f"{answer.trouble or 'its end'} before the first event"
        return Result("stream", tried, got, Fault.NO_ANSWER)
    if not answer.events:
        got = f"headers after {answer.head_s:.1f} s, and no event within {limit_s:g} s"
        return Result("first byte", tried, got, Fault.BUFFERING)
    if not answer.of("ready"):
        reason = reason_of(answer)
        is_down = reason == EndReason.UPSTREAM_UNAVAILABLE.value
        fault = Fault.SERVICE_DOWN if is_down else Fault.NOT_SERVED
        return Result("stream", tried, f"a soft answer of reason {reason}", fault)
    took_ms = answer.events[0][0] * 1000
    return Result("stream", tried, f"200, uncompressed, its first event after {took_ms:.0f} ms")


def _fault_of(answer: Answer) -> Fault:
    if answer.status == Refusal.HOST_NOT_ALLOWED.status:
        return Fault.HOST
    if answer.status in (400, 401, 403):
        return Fault.REFUSED
    if answer.status in _GATEWAY:
        return Fault.SERVICE_DOWN
    return Fault.HARD_ANSWER if answer.status in (429, 500) else Fault.WRONG_ANSWER


def judge_headers(answer: Answer) -> Result:
    """Judge what else keeps an event stream as it is on its way."""
    expected = {each.strip() for each in HEADERS["Cache-Control"].split(",")}
    got = answer.headers.get("cache-control", "none")
    tried = "look for Cache-Control on the stream"
    has_all = expected <= {each.strip() for each in got.lower().split(",")}
    return Result("headers", tried, got, None if has_all else Fault.CACHE_CONTROL)


# -- several streams


def judge_cache(first: Answer, second: Answer) -> Result:
    """Judge whether two requests get two streams."""
    tried = "GET /events twice"
    one, other = (ready_of(each).get("connection_id") for each in (first, second))
    if one is not None and one == other:
        age = f", Age: {second.headers['age']}" if "age" in second.headers else ""
        return Result("cache", tried, f"the same stream twice, {one}{age}", Fault.CACHE)
    return Result("cache", tried, "two streams")


def judge_resumption(answer: Answer, last_event_id: str) -> Result:
    """Judge whether the service knew where the browser had stopped."""
    tried = f"GET /events with Last-Event-ID: {last_event_id}"
    refreshes = [object_of(event.data) for _, event in answer.of("refresh")]
    if not answer.of("ready"):
        return Result("resumption", tried, str(answer), is_note=True)
    if any(each.get("reason") == "connected" for each in refreshes):
        got = "a refresh of reason connected, as for a new page"
        return Result("resumption", tried, got, Fault.LAST_EVENT_ID)
    return Result("resumption", tried, "a stream that goes on from there")


def judge_tabs(answers: Sequence[Answer]) -> Result:
    """Judge what a browser with several tabs gets: each a stream, or a time to come back."""
    tried = f"open {len(answers)} more streams at once, and no more than that"
    hard = [each for each in answers if not each.is_event_stream]
    if hard:
        return Result("limits", tried, f"{len(hard)} times {hard[0]}", Fault.HARD_ANSWER)
    soft = [each for each in answers if not each.of("ready")]
    if soft:
        got = f"{len(soft)} soft answers, {reason_of(soft[0])}: they come back later"
        return Result("limits", tried, got, is_note=True)
    return Result("limits", tried, "each is served")


# -- silence


def judge_silence(stream: Answer, heartbeat_s: float, listened_s: float) -> Result:
    """Judge whether an event stream lives through the silence between heartbeats."""
    tried = f"listen for {listened_s:.0f} s; a heartbeat is due after {heartbeat_s:g} s of silence"
    last_s = stream.events[-1][0]
    if stream.of("goodbye"):
        got = f"a goodbye of reason {reason_of(stream)} after {stream.ended_s:.0f} s"
        return Result("silence", tried, got, is_note=True)
    if stream.has_ended:
        silent_s = stream.ended_s - last_s
        got = f"the end after {stream.ended_s:.1f} s, {silent_s:.1f} s of them silent, no goodbye"
        return Result("silence", tried, got, Fault.IDLE_CUT)
    heard = len(stream.of("heartbeat"))
    if not heard and listened_s - last_s > HEARTBEATS_LATE * heartbeat_s:
        return Result("silence", tried, "no heartbeat", Fault.BUFFERING)
    return Result("silence", tried, f"{heard} heartbeats, and the stream goes on")
