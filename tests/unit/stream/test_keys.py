"""The names of keys, with the default prefix and with another one."""

from __future__ import annotations

import pytest

from sse_push.stream.keys import Keys, probe_merchant
from tests.harness.keys import REVOCATIONS_KEY, merchant_of, stream_key


@pytest.mark.parametrize("merchant_id", ["42", "Shop.7_b:c-d", "-7", "x" * 64])
def test_a_merchant_has_a_key_of_one_slot(merchant_id: str) -> None:
    key = stream_key(merchant_id)

    assert key == f"sse_push:{{{merchant_id}}}"
    assert merchant_of(key.encode()) == merchant_id


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"42",
        b"sse_push:",
        b"sse_push:{",
        b"sse_push:{42",
        b"sse_push:42}",
        b"sse_push:{42}x",
        b"xsse_push:{42}",
        b"SSE_PUSH:{42}",
        REVOCATIONS_KEY.encode(),
        b"sse_push:probe:{42}",
        b"\xff{42}",
    ],
)
def test_a_key_of_another_form_belongs_to_no_merchant(key: bytes) -> None:
    assert merchant_of(key) is None


def test_a_key_with_wrong_bytes_belongs_to_a_merchant_that_cannot_exist() -> None:
    assert merchant_of(b"sse_push:{\xff}") == "\ufffd"


@pytest.mark.parametrize("prefix", ["shop", "shop:staging", "sse_push2", "sse"])
def test_services_with_different_prefixes_have_no_key_in_common(prefix: str) -> None:
    keys, other = Keys(prefix), Keys("sse_push")

    assert keys.merchant_of(keys.stream("42").encode()) == "42"
    assert keys.merchant_of(other.stream("42").encode()) is None
    assert other.merchant_of(keys.stream("42").encode()) is None
    assert keys.revocations == f"{prefix}:revocations"
    names = {keys.stream("42"), keys.stream(probe_merchant("1")), keys.revocations, keys.script}
    assert all(name.startswith(keys.pattern.removesuffix("*")) for name in names)
    assert not any(name.startswith("sse_push:") for name in names)
