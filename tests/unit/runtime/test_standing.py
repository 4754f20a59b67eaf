"""A service that leaves, and what a service manager is told: from a world without processes."""

from __future__ import annotations

import pytest

from sse_push.runtime.service_manager import Given, ServiceManager, State
from sse_push.runtime.standing import is_well, state_of, text_of
from sse_push.runtime.supervision import Act, Order, Phase
from tests.unit.runtime.test_supervision import START, STEP_S, World, serving

DELAY_S = 3


def told(world: World) -> tuple[State, str]:
    return state_of(world.machine), text_of(world.machine)


# -- the manager


def test_the_manager_is_told_each_step_of_a_life() -> None:
    world = World(2, DELAY_S)
    assert told(world) == (State.STARTING, "starting, 0 of 2 workers serve")
    world.serve(1)
    assert told(world) == (State.READY, "1 of 2 workers serve")
    world.serve(2)

    world.machine.restart()
    assert told(world) == (State.RELOADING, "restarting, 2 of 2 workers serve")
    world.obey()
    world.serve(3)
    world.end(1)
    world.serve(4)
    assert told(world) == (State.RELOADING, "restarting, 2 of 2 workers serve")
    world.end(2)
    assert told(world) == (State.READY, "2 of 2 workers serve")

    world.machine.stop()
    assert told(world) == (State.STOPPING, "leaving, 2 of 2 workers serve, none is ready")
    world.machine.stop()
    assert told(world) == (State.STOPPING, "stopping, workers left: 2")
    world.machine.stop()
    assert told(world) == (State.STOPPING, "cutting connections, workers left: 2")
    world.end(3)
    world.end(4)
    assert told(world) == (State.STOPPING, "ended")


def test_a_restart_in_the_moment_of_the_first_start_is_told_as_one() -> None:
    manager = ServiceManager(Given())
    world = World(1)
    manager.tell(*told(world))

    world.serve(1)
    world.machine.restart()

    manager.tell(*told(world))
    assert told(world) == (State.RELOADING, "restarting, 1 of 1 workers serve")


def test_a_restart_that_is_abandoned_is_over() -> None:
    world = serving(1)
    world.machine.restart()
    world.took()
    world.end(2, 1)

    assert told(world) == (State.READY, "1 of 1 workers serve")


def test_a_service_is_well_while_one_of_its_workers_is() -> None:
    world = serving(2)
    for _ in range(20):
        world.machine.on_well(2)
        world.wait(STEP_S, 1, 2)
    assert is_well(world.machine)

    world.wait(5 - STEP_S, 1, 2)
    assert is_well(world.machine)
    world.wait(STEP_S, 1, 2)
    assert not is_well(world.machine), "each worker lives, and none finds its probes"

    world.machine.on_well(1)
    assert is_well(world.machine)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING, Phase.CUTTING, Phase.ENDED])
def test_a_service_that_does_not_serve_has_other_limits(phase: Phase) -> None:
    world = World(1)
    world.machine.phase = phase

    assert is_well(world.machine)


def test_a_service_without_workers_is_not_well() -> None:
    world = serving(1)

    world.end(1, 1)

    assert not is_well(world.machine)


# -- leaving


def test_a_service_that_leaves_serves_on_and_then_ends_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    world = serving(2, DELAY_S)
    caplog.clear()

    world.machine.stop()
    assert world.took() == [Order(Act.LEAVE, 1), Order(Act.LEAVE, 2)]
    world.wait(DELAY_S - STEP_S, 1, 2)
    assert world.took() == []
    world.wait(STEP_S, 1, 2)

    assert world.took() == [Order(Act.STOP, 1), Order(Act.STOP, 2)]
    assert caplog.messages == ["leaving, workers serve on for_s=3"]
    world.end(1)
    world.end(2)
    assert (world.machine.phase, world.machine.status) == (Phase.ENDED, 0)


def test_a_second_signal_ends_the_delay_a_third_cuts_and_a_fourth_kills() -> None:
    world = serving(1, DELAY_S)
    world.machine.stop()
    world.took()

    for act in (Act.STOP, Act.CUT, Act.KILL):
        world.machine.stop()
        assert world.took() == [Order(act, 1)]


def test_a_worker_that_dies_while_the_service_leaves_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = serving(1, DELAY_S)
    world.wait(20, 1)
    world.machine.stop()
    world.took()

    world.end(1, -9)
    assert world.took() == [START]
    world.serve(2)

    assert world.took() == [Order(Act.LEAVE, 2)]
    assert caplog.messages == ["worker died, starting another pid=1 status=-9 wait_s=0"]


def test_a_restart_is_given_up_when_the_service_leaves() -> None:
    world = serving(2, DELAY_S)
    world.machine.restart()
    world.took()
    world.machine.stop()
    world.serve(3)
    assert world.took() == [
        *(Order(Act.LEAVE, pid) for pid in (1, 2, 3)),
    ], "three are one too many, for a moment"
    world.machine.restart()

    assert world.took() == []


def test_a_part_that_dies_while_the_service_leaves_ends_it() -> None:
    world = serving(1, DELAY_S)
    world.machine.stop()
    world.took()

    world.machine.fail()
    assert world.took() == [Order(Act.STOP, 1)]
    world.end(1)

    assert world.machine.status == 1


def test_a_start_that_is_stopped_does_not_leave() -> None:
    world = World(1, DELAY_S)
    world.took()

    world.machine.stop()

    assert world.took() == [Order(Act.KILL, 1)]
