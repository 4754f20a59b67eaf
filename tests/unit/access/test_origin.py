from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from sse_push.access.origin import ANY, Origins, require_backend
from sse_push.errors import OriginNotAllowed

APP = "https://app.test"


OWN = (b"cache-control", b"no-store")


def headers_of(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for name, value in pairs])


async def added_headers(
    origins: Origins, *pairs: tuple[str, str], own: tuple[bytes, bytes] = OWN
) -> list[tuple[bytes, bytes]]:
    """Return the headers that are added to an answer, which already has one."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [own]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body: dict[str, Any] = {"type": "http.response.body", "body": b"x"}
    sending = origins.with_cors_headers({"type": "http", "headers": headers_of(*pairs).raw}, send)
    await sending(start)
    await sending(body)

    assert sent[1] is body
    assert headers == [own]  # others send the same list
    all_headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    assert all_headers[:1] == [own]
    return all_headers[1:]


def test_a_request_without_origin_passes() -> None:
    for origins in (Origins(()), Origins((APP,)), Origins((ANY,))):
        origins.check(headers_of())
        origins.check(headers_of(("Host", "push.test")))
        origins.check(headers_of(("Sec-Fetch-Site", "same-origin")))


@pytest.mark.parametrize("origin", [APP, "https://other.test", "null", "\xe9"])
def test_every_origin_passes_if_any_is_allowed(origin: str) -> None:
    Origins((ANY,)).check(headers_of(("Origin", origin), ("Sec-Fetch-Site", "cross-site")))


def test_a_site_that_hides_its_origin_is_refused_even_if_any_is_allowed() -> None:
    with pytest.raises(OriginNotAllowed, match="got one of another site"):
        Origins((ANY,)).check(headers_of(("Sec-Fetch-Site", "cross-site")))


APPS = ("capacitor://localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop")


@pytest.mark.parametrize("origin", APPS)
def test_the_origin_of_an_app_passes_exactly_as_it_is_written(origin: str) -> None:
    Origins(APPS).check(headers_of(("Origin", origin), ("Sec-Fetch-Site", "cross-site")))
    for other in (origin.upper(), f"{origin}/", f"{origin}:80", origin[:-1], "https://localhost"):
        with pytest.raises(OriginNotAllowed):
            Origins(APPS).check(headers_of(("Origin", other)))


@pytest.mark.parametrize("host", ["localhost", "Localhost"])
def test_an_app_is_of_no_origin_of_the_service(host: str) -> None:
    with pytest.raises(OriginNotAllowed):
        Origins(()).check(headers_of(("Origin", "capacitor://localhost"), ("Host", host)))


SHOPS = Origins(("https://*.shop.test", "http://*.dev.test:8080"))


@pytest.mark.parametrize(
    "origin",
    ["https://a.shop.test", "https://xn--mnchen-3ya.shop.test", "http://a-1.dev.test:8080"],
)
async def test_a_first_label_of_any_name_passes_and_is_answered_as_itself(origin: str) -> None:
    SHOPS.check(headers_of(("Origin", origin), ("Sec-Fetch-Site", "cross-site")))

    assert (await added_headers(SHOPS, ("Origin", origin)))[1:] == [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-allow-credentials", b"true"),
    ]


@pytest.mark.parametrize(
    "origin",
    [
        *("https://shop.test", "https://a.b.shop.test", "http://a.shop.test", "https://.shop.test"),
        *("https://a.shop.test:8443", "https://a.shop.test.evil.test", "https://ashop.test"),
        *("https://a.shop.test/", "https://A.shop.test", "a.shop.test"),
        *("https://x@a.shop.test", "https://evil.test/a.shop.test", "https://evil.test#.shop.test"),
        *("http://a.dev.test", "https://a.dev.test:8080", "null", "", "xhttps://a.shop.test"),
        *("https://\xe9.shop.test", "https://a\n.shop.test", "https://a.shop.test\n"),
    ],
)
async def test_any_other_origin_than_one_label_more_is_refused(origin: str) -> None:
    with pytest.raises(OriginNotAllowed):
        SHOPS.check(headers_of(("Origin", origin)))

    assert await added_headers(SHOPS, ("Origin", origin)) == [(b"vary", b"Origin")]


@pytest.mark.parametrize("origin", ["https://other.test", "null", "", "\xe9", f"{APP}/"])
def test_another_origin_is_refused_and_not_repeated(origin: str) -> None:
    for origins in (Origins(()), Origins((APP,))):
        with pytest.raises(OriginNotAllowed) as caught:
            origins.check(headers_of(("Origin", origin), ("Host", "push.test")))

        assert str(caught.value) == "expected an origin of allowed_origins, got another one"


@pytest.mark.parametrize("pairs", [[("Origin", "https://")], [("Origin", ""), ("Host", "")]])
def test_an_empty_host_matches_no_origin(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(OriginNotAllowed):
        Origins(()).check(headers_of(*pairs))


async def test_an_answer_is_unchanged_if_no_other_origin_is_allowed() -> None:
    async def send(_message: Message) -> None:
        """Accept any message."""

    assert Origins(()).with_cors_headers({"type": "http", "headers": []}, send) is send


async def test_an_answer_to_any_origin_allows_no_credentials() -> None:
    assert await added_headers(Origins((ANY,)), ("Origin", APP)) == [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", b"*"),
    ]


async def test_an_answer_to_an_allowed_origin_allows_credentials() -> None:
    assert await added_headers(Origins((APP, "https://b.test")), ("Origin", APP)) == [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", APP.encode()),
        (b"access-control-allow-credentials", b"true"),
    ]


async def test_a_page_of_an_allowed_origin_may_read_when_to_come_back() -> None:
    own, exposed = (b"retry-after", b"10"), (b"access-control-expose-headers", b"Retry-After")

    allowed = await added_headers(Origins((APP,)), ("Origin", APP), own=own)
    others = await added_headers(Origins((APP,)), ("Origin", "https://b.test"), own=own)

    assert allowed[-1] == exposed
    assert others == [(b"vary", b"Origin")]


@pytest.mark.parametrize(
    "pairs", [[], [("Origin", "https://b.test")], [("Origin", APP), ("Origin", APP)]]
)
async def test_an_answer_to_another_origin_has_vary_only(pairs: list[tuple[str, str]]) -> None:
    assert await added_headers(Origins((APP,)), *pairs) == [(b"vary", b"Origin")]


@pytest.mark.parametrize("origin", ["", APP, "null"])
def test_a_page_is_recognized_by_its_origin_header(origin: str) -> None:
    with pytest.raises(OriginNotAllowed):
        require_backend(headers_of(("Origin", origin)))
    require_backend(headers_of(("Host", "push.test")))
