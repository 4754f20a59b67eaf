from __future__ import annotations

import ipaddress

import pytest
from starlette.datastructures import Headers

from sse_push.access.keyless import Keyless
from sse_push.errors import RefusalReason, RequestError

NETWORKS = [ipaddress.ip_network(each) for each in ("127.0.0.0/8", "::1/128", "10.1.0.0/16")]
BACKEND = {"host": "127.0.0.1:8000", "connection": "close", "user-agent": "PHP", "accept": "*/*"}


def refusal(peer: str | None, headers: dict[str, str], *hosts: str) -> RefusalReason | None:
    """Return why a request is refused, or None."""
    keyless = Keyless(NETWORKS, hosts)
    try:
        keyless.check(None if peer is None else (peer, 4711), Headers(headers))
    except RequestError as exc:
        assert keyless.admitted == 0
        return exc.reason
    assert keyless.admitted == 1
    return None


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "::ffff:10.1.2.3"])
@pytest.mark.parametrize("headers", [BACKEND, {}])
def test_a_backend_needs_no_key_at_its_address(peer: str, headers: dict[str, str]) -> None:
    assert refusal(peer, headers) is None


@pytest.mark.parametrize("peer", ["10.2.0.1", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", None])
def test_another_address_is_refused_and_so_is_a_peer_without_one(peer: str | None) -> None:
    assert refusal(peer, BACKEND) is RefusalReason.BACKEND_NOT_TRUSTED


@pytest.mark.parametrize(
    "header",
    [
        *("Origin", "Referer", "Cookie", "Accept-Language", "Upgrade-Insecure-Requests"),
        *("Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-CH-UA", "Sec-GPC"),
    ],
)
@pytest.mark.parametrize("value", ["", "same-origin"])
def test_a_browser_is_refused_by_any_header_that_only_browsers_send(
    header: str, value: str
) -> None:
    assert refusal("127.0.0.1", {**BACKEND, header: value}) is RefusalReason.PAGE_NOT_BACKEND


@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP"),
        *("Forwarded", "Via", "X-Merchant-Id"),
    ],
)
def test_a_request_by_way_of_a_proxy_is_refused_whatever_address_it_names(header: str) -> None:
    headers = {**BACKEND, header: "127.0.0.1"}

    assert refusal("127.0.0.1", headers) is RefusalReason.PROXY_NOT_BACKEND
    assert refusal("192.0.2.1", headers) is RefusalReason.PROXY_NOT_BACKEND


@pytest.mark.parametrize(
    ("host", "hosts", "is_refused"),
    [
        ("evil.test:8000", [], True),
        ("push:9501", [], True),
        ("push:9501", ["push"], False),
        ("localhost:9501", [], False),
        ("[::1]:9501", [], False),
        ("10.1.0.9", [], False),
        ("evil.test", ["*"], False),
    ],
)
def test_a_name_in_host_must_be_one_of_the_settings(
    host: str, hosts: list[str], *, is_refused: bool
) -> None:
    found = refusal("127.0.0.1", {**BACKEND, "host": host}, *hosts)

    assert found is (RefusalReason.HOST_NOT_ALLOWED if is_refused else None)
