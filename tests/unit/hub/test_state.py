from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from sse_push.errors import EndReason
from sse_push.hub import TRANSITIONS, State
from tests.unit.hub import HEARTBEAT_S, Client, Service

REFUSAL = "the sink refuses a frame"


def rows() -> list[tuple[str, str, str]]:
    """Return the table in the docstring of ``State``: state, event, next state."""
    assert State.__doc__ is not None
    _, _, table, _ = State.__doc__.split("    ================  ===", maxsplit=3)
    lines = [line.strip() for line in table.splitlines()[1:]]
    return [(line[:18].strip(), line[18:52].strip(), line[52:]) for line in lines if line]


def refuse(client: Client) -> None:
    client.is_taking = False
    client.service.clock.advance(HEARTBEAT_S)


def admit(client: Client) -> None:
    client.service.compare(client)
    client.service.hub.admit(client.subscription, ())


def end(client: Client) -> None:
    client.service.hub.end(client.subscription, EndReason.CONNECTION_AGE)


def unsubscribe(client: Client) -> None:
    client.service.hub.unsubscribe(client.subscription)


EVENTS: dict[str, list[Callable[[Client], None]]] = {
    REFUSAL: [refuse],
    "``Hub.admit``": [admit],
    "``Hub.drained``": [Client.drained],
    "``Hub.unsubscribe``, ``Hub.end``": [unsubscribe, end],
}

REACHED_BY: dict[State, list[Callable[[Client], None]]] = {
    State.JOINING: [],
    State.JOINING_BLOCKED: [refuse],
    State.FLOWING: [admit],
    State.BLOCKED: [admit, refuse],
    State.ENDED: [end],
}


def client_in(state: State) -> Client:
    client = Service().join()
    for event in REACHED_BY[state]:
        event(client)
    assert client.subscription.state is state
    return client


def test_the_documented_table_is_the_table_that_is_checked() -> None:
    documented: dict[State, set[State]] = {state: set() for state in State}
    for state, _, next_state in rows():
        documented[State[state]].add(State[next_state])

    assert documented == TRANSITIONS


@pytest.mark.parametrize(
    ("state", "event", "next_state"),
    [(row[0], event, row[2]) for row in rows() for event in EVENTS[row[1]]],
)
def test_an_event_of_the_table_leads_to_its_next_state(
    state: str, event: Callable[[Client], None], next_state: str
) -> None:
    client = client_in(State[state])

    event(client)

    assert client.subscription.state is State[next_state]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.JOINING, Client.drained),
        (State.FLOWING, Client.drained),
        (State.ENDED, Client.drained),
        (State.ENDED, unsubscribe),
        (State.ENDED, end),
    ],
)
def test_any_other_event_leaves_the_state_as_it_is(
    state: State, event: Callable[[Client], None]
) -> None:
    client = client_in(state)

    event(client)

    assert client.subscription.state is state


@pytest.mark.parametrize(("state", "next_state"), list(itertools.product(State, State)))
def test_a_change_of_state_is_legal_if_the_table_has_it(state: State, next_state: State) -> None:
    subscription = client_in(state).subscription

    if next_state in TRANSITIONS[state]:
        subscription.become(next_state)
        assert subscription.state is next_state
    else:
        with pytest.raises(AssertionError, match=f"got {state.name} to {next_state.name}"):
            subscription.become(next_state)
        assert subscription.state is state
