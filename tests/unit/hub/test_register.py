from __future__ import annotations

import pytest

from tests.harness.ids import at
from tests.unit.hub import (
    AFTER_INTERVAL_S,
    Service,
    ids_and_topics,
)


def test_a_merchant_is_watched_from_its_first_client_to_its_last(
    service: Service,
) -> None:
    first = service.join()
    second = service.join()
    other = service.join("43")

    assert service.source.calls == [("watch", "42"), ("watch", "43")]
    assert (len(service.hub), service.hub.merchant_count) == (3, 2)

    service.hub.unsubscribe(first.subscription)
    service.hub.unsubscribe(other.subscription)
    service.hub.unsubscribe(second.subscription)

    assert service.source.calls[2:] == [("unwatch", "43"), ("unwatch", "42")]
    assert (len(service.hub), service.hub.merchant_count) == (0, 0)


def test_a_merchant_that_was_dropped_is_read_again_when_a_client_comes(
    service: Service,
) -> None:
    service.hub.unsubscribe(service.open().subscription)

    again = service.join()

    assert service.source.calls == [("watch", "42"), ("unwatch", "42"), ("watch", "42")]
    with pytest.raises(AssertionError, match="compared only with a stream that was read"):
        service.hub.settle(again.subscription)
    service.hub.armed("42", at(9))
    assert service.hub.settle(again.subscription) == at(9)


def test_a_merchant_is_kept_for_a_client_that_is_still_joining(service: Service) -> None:
    live = service.open()
    joining = service.join()

    service.hub.unsubscribe(live.subscription)
    service.change("a")
    service.compare(joining)
    service.hub.admit(joining.subscription, ())
    service.change("b")
    service.clock.advance(AFTER_INTERVAL_S)

    assert service.source.calls == [("watch", "42")]
    assert ids_and_topics(joining.refreshes) == [(2, "b")]
