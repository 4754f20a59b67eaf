"""What doctor makes of credentials, and of what is for backends."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from sse_push.access.gate import Gate
from sse_push.access.proxies import Proxies
from sse_push.access.tokens import TokenRules
from sse_push.doctor import rights
from sse_push.doctor.asking import Answer, Stage
from sse_push.doctor.faults import Fault
from sse_push.doctor.reading import (
    event_id_of,
    heartbeat_of,
    merchant_of,
    object_of,
    permitted_bytes,
    reason_of,
)
from sse_push.doctor.target import Target
from sse_push.errors import Refusal, Unauthorized
from tests.harness.documents import ROOT
from tests.unit.doctor.test_judging import HTTPS, LOCAL, READY, answer_of, stream_of

NO_TOKEN = answer_of(401, Refusal.UNAUTHORIZED.body("expected a token: Authorization: Bearer"))
OLD_TOKEN = answer_of(401, Refusal.UNAUTHORIZED.body("expected a token that has not expired"))
NO_SESSION = answer_of(401, Refusal.UNAUTHORIZED.body("expected a session of the backend"))


def test_a_stream_without_credentials_is_noted() -> None:
    anyone, refused, odd = (
        rights.judge_anyone(each) for each in (stream_of(READY), NO_TOKEN, answer_of(404))
    )

    assert "anyone" in anyone.got
    assert [each.is_note for each in (anyone, refused, odd)] == [True, False, True]


def test_a_merchant_that_a_client_names_itself_is_a_fault() -> None:
    assert rights.judge_spoofing(NO_SESSION, answer_of(200)).fault is Fault.SPOOFED
    assert rights.judge_spoofing(NO_SESSION, NO_SESSION).fault is None


def test_a_token_that_is_lost_is_a_fault() -> None:
    assert rights.judge_authorization(answer_of(200)).fault is None
    assert rights.judge_authorization(answer_of(401)).fault is Fault.AUTHORIZATION
    assert rights.judge_authorization(Answer(Stage.ENDED)).fault is Fault.AUTHORIZATION


@pytest.mark.parametrize(
    ("bare", "answer", "fault"),
    [
        (stream_of(READY), stream_of(READY), None),
        (NO_TOKEN, stream_of(READY), None),
        (NO_TOKEN, NO_TOKEN, Fault.COOKIE),
        (NO_SESSION, NO_SESSION, Fault.COOKIE),
        (NO_TOKEN, OLD_TOKEN, Fault.REFUSED),
        (NO_TOKEN, answer_of(403, b"<html>"), Fault.COOKIE),
        (NO_TOKEN, answer_of(500), Fault.COOKIE),
    ],
)
def test_a_cookie_that_is_lost_is_told_from_one_that_is_refused(
    bare: Answer, answer: Answer, fault: Fault | None
) -> None:
    assert rights.judge_cookie(bare, answer).fault is fault


ORIGIN = "https://app.example"


@pytest.mark.parametrize(
    ("allowed", "credentials", "status", "cookies", "fault"),
    [
        (ORIGIN, "true", 200, ("a=b",), None),
        (ORIGIN, "", 200, (), None),
        (ORIGIN, "", 200, ("a=b",), Fault.CORS),
        ("*", "", 200, (), None),
        ("*", "true", 200, ("a=b",), Fault.CORS),
        ("https://other.example", "true", 200, (), Fault.CORS),
        (ORIGIN, "true", 403, (), Fault.CORS),
    ],
)
def test_a_page_of_another_origin_needs_its_headers(
    allowed: str, credentials: str, status: int, cookies: tuple[str, ...], fault: Fault | None
) -> None:
    target = Target.of("https://push.example", origin=ORIGIN, cookies=cookies)
    headers = {
        "access-control-allow-origin": allowed,
        "access-control-allow-credentials": credentials,
    }

    assert rights.judge_origin(target, answer_of(status, headers=headers)).fault is fault


@pytest.mark.parametrize(("status", "fault"), [(200, None), (403, Fault.CORS)])
def test_a_page_of_the_same_origin_needs_no_headers(status: int, fault: Fault | None) -> None:
    target = Target.of("https://push.example", origin="https://push.example")

    assert rights.judge_origin(target, answer_of(status)).fault is fault


# -- backends

UNKNOWN_KEY = answer_of(401, Refusal.UNAUTHORIZED.body("expected a key of notify_keys"))
NO_MERCHANT = answer_of(400, Refusal.MALFORMED.body("merchant_id: expected"))


@pytest.mark.parametrize(
    ("answer", "is_open"),
    [
        (answer_of(404), False),
        (answer_of(403, b"<html>"), False),
        (answer_of(401, b"<html>a login"), False),
        (answer_of(200, b"<html>a page for every path"), False),
        (answer_of(404, Refusal.NOT_FOUND.body("no such path")), False),
        (Answer(Stage.ENDED), False),
        (UNKNOWN_KEY, True),
        (NO_MERCHANT, True),
        (answer_of(200, b"# HELP sse_push_connections_open open connections"), True),
    ],
)
def test_an_endpoint_for_backends_is_open_if_the_service_answers(
    answer: Answer, *, is_open: bool
) -> None:
    fault = rights.judge_closed(HTTPS, {"/notify": answer}).fault

    assert fault is (Fault.OPEN_TO_ALL if is_open else None)


def test_an_endpoint_for_backends_may_answer_at_an_address_of_its_own() -> None:
    own = Target.of("https://push.internal", notify_address=HTTPS.address)
    same = Target.of("https://push.example", notify_address=HTTPS.address)

    found = [rights.judge_closed(each, {"/notify": UNKNOWN_KEY}) for each in (own, same, LOCAL)]

    assert [each.fault for each in found] == [Fault.OPEN_TO_ALL, None, None]


@pytest.mark.parametrize(
    ("answer", "delays_s", "is_held", "fault"),
    [
        (UNKNOWN_KEY, [], False, Fault.NOTIFY),
        (answer_of(200), [0.5, 0.01, 0.4], False, None),
        (answer_of(200), [0.5, 0.2, 0.4], False, Fault.LATE),
        (answer_of(200), [0.1, None], False, Fault.LOST),
        (answer_of(200), [None], True, Fault.BUFFERING),
    ],
)
def test_the_time_of_a_notification_is_judged(
    answer: Answer, delays_s: list[float | None], *, is_held: bool, fault: Fault | None
) -> None:
    result = rights.judge_notify(answer, delays_s, stream_of(READY), is_held=is_held)

    assert result.fault is fault


def test_a_notification_without_a_stream_is_not_judged() -> None:
    stream = stream_of(READY)
    stream.stage = Stage.ENDED

    result = rights.judge_notify(answer_of(200), [None], stream, is_held=False)

    assert (result.fault, result.is_note) == (None, True)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answer_of(200), None),
        (answer_of(413), Fault.BODY_LIMIT),
        (Answer(Stage.ENDED), Fault.BODY_LIMIT),
        (answer_of(429), None),
    ],
)
def test_a_body_that_does_not_reach_the_service_is_a_fault(
    answer: Answer, fault: Fault | None
) -> None:
    assert rights.judge_body(answer, 1_048_576).fault is fault


# -- what the service tells


def test_a_limit_is_read_from_the_answer_of_the_service_only() -> None:
    told = Refusal.TOO_LARGE.body("body: expected at most 2048 bytes, got more")

    assert permitted_bytes(answer_of(413, told)) == 2048
    assert permitted_bytes(answer_of(200, told)) is None
    assert permitted_bytes(answer_of(413, {"detail": "expected a body of at most 1 MiB"})) is None


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000])
def test_a_text_that_is_no_object_tells_nothing(text: str) -> None:
    assert object_of(text) == {}


@pytest.mark.parametrize("told", [None, "15", 0, -1, 1e9, [15]])
def test_a_heartbeat_that_makes_no_sense_is_the_default(told: object) -> None:
    assert heartbeat_of(stream_of((0.1, "ready", {"heartbeat_s": told}))) == 15
    assert heartbeat_of(stream_of((0.1, "ready", {"heartbeat_s": 2}))) == 2


def test_an_id_is_read_with_and_without_the_name_of_its_merchant() -> None:
    assert event_id_of("42@7-1.0123abcd") == event_id_of("7-1.0123abcd")
    assert event_id_of("None") is None


@pytest.mark.parametrize(
    ("told", "merchant_id"),
    [
        ({"merchant_id": "42"}, "42"),
        ({"merchants": {"43": {"owed": True}, "42": {"pending": True}}}, "43"),
        ({"merchants": {}}, None),
        ({"merchants": "42"}, None),
        ({}, None),
    ],
)
def test_a_stream_tells_its_merchant_or_one_of_its_several(
    told: dict[str, object], merchant_id: str | None
) -> None:
    assert merchant_of(stream_of((0.1, "ready", told))) == merchant_id


def test_a_stream_without_a_goodbye_has_no_reason() -> None:
    assert reason_of(stream_of(READY)) == "none: no ready, and no goodbye"
    assert reason_of(stream_of((0.1, "goodbye", {}))) == "none"


def test_the_first_words_of_a_401_without_credentials_are_those_of_the_gate_and_of_nginx() -> None:
    rules = TokenRules(keys=(), audience=None, issuer=None, leeway_s=5, max_lifetime_s=3600)
    proxies = Proxies((), is_unix_socket=False)
    gate = Gate("token", proxies=proxies, max_merchants=16, token_rules=rules)
    request = Request({"type": "http", "headers": [], "query_string": b""})

    with pytest.raises(Unauthorized) as refused:
        gate.authorize_subscribe(request, [])

    of_gate, of_nginx = rights.NOTHING_SHOWN
    assert str(refused.value).startswith(of_gate)
    assert f'"{of_nginx}' in (ROOT / "nginx/conf.d/sse-push.conf").read_text()
