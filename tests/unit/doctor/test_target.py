"""What doctor is asked to examine."""

from __future__ import annotations

import pytest

from sse_push.doctor.target import MERCHANT, Address, Target
from sse_push.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "shown", "path"),
    [
        ("https://push.example", "https://push.example", "/events?merchant_id=42"),
        ("HTTPS://Push.Example:443/", "https://push.example", "/events?merchant_id=42"),
        ("http://push.example:8080/a/events", "http://push.example:8080/a", None),
        ("http://[::1]:8000/events/", "http://[::1]:8000", "/events?merchant_id=42"),
        ("https://bücher.example", "https://xn--bcher-kva.example", None),
        ("https://push.example/a b", "https://push.example/a%20b", None),
    ],
)
def test_a_url_is_that_of_a_site_or_of_its_stream(text: str, shown: str, path: str | None) -> None:
    target = Target.of(text, merchant_id="42")

    assert str(target.address) == shown
    if path is not None:
        assert target.events_path(with_token=True) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "push.example",
        "ftp://push.example",
        "http://",
        "http://a:b",
        "http://u:p@x",
        "http://[::",
    ],
)
def test_a_text_that_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a URL, as in https"):
        Address.parse(text)


def test_a_url_as_a_page_opens_it_names_merchant_and_token() -> None:
    target = Target.of("https://push.example/events?merchant_id=42&token=t%2B&x=1")
    other = Target.of("https://push.example/events?merchant_id=42&token=t", token="other")

    assert (target.merchant_id, target.token) == ("42", "t+")
    assert target.events_path(with_token=True) == "/events?x=1&merchant_id=42&token=t%2B"
    assert target.events_path(with_token=False) == "/events?x=1&merchant_id=42"
    assert other.token == "other"


def test_a_merchant_is_named_unless_credentials_do() -> None:
    assert Target.of("http://x").merchant_id == MERCHANT
    assert Target.of("http://x", token="t").merchant_id is None
    assert Target.of("http://x", cookies=("a=b",)).events_path(with_token=True) == "/events"


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1", True),
        ("http://localhost", True),
        ("http://[::1]", True),
        ("http://x", False),
    ],
)
def test_an_address_of_this_machine_is_known(url: str, *, is_local: bool) -> None:
    assert Address.parse(url).is_local is is_local


def test_a_file_without_certificates_is_refused() -> None:
    with pytest.raises(ConfigError, match="--ca-file: expected certificates in PEM"):
        Target.of("https://x", ca_file=__file__).trust("h2")
    with pytest.raises(ConfigError, match="--ca-file: expected certificates in PEM"):
        Target.of("https://x", ca_file="/nowhere").trust("h2")
