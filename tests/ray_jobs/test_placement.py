"""The arithmetic before Ray starts."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ray_jobs.runtime.placement import DRIVER_CPUS, Node, place
from wm.config.errors import UserError
from wm.config.platform import ResourcesConfig


@pytest.mark.parametrize(("cpus", "runs"), [(1, 1), (2, 2), (4, 4), (16, 6)])
def test_defaults_fit_and_leave_room_for_reading(cpus: int, runs: int) -> None:
    resources = ResourcesConfig()
    placement = place(resources, [Node(cpus)], 6)
    assert placement.runs_at_once == runs
    used = runs * (DRIVER_CPUS + resources.cpus_per_worker + resources.cpus_per_data_task)
    assert used <= cpus
    assert placement.planning_actors == cpus


def test_impossible_requests_are_refused_with_both_numbers() -> None:
    two = [Node(2)]
    with pytest.raises(UserError, match=r"needs 2\.86 CPUs .* there are 2 CPUs"):
        place(ResourcesConfig(num_workers=3), two, 1)
    with pytest.raises(UserError, match="and 1 GPUs, but there are 2 CPUs and 0 GPUs"):
        place(ResourcesConfig(gpus_per_worker=1), two, 1)
    with pytest.raises(UserError, match=r"3 runs need 2\.88 CPUs .* at most 2"):
        place(ResourcesConfig(runs_at_once=3), two, 6)
    with pytest.raises(UserError, match=r"5 x \(0\.95 CPUs .* there are 2 CPUs"):
        place(ResourcesConfig(planning_actors=5), two, 1)
    with pytest.raises(UserError, match="gpus_per_planning_actor"):
        place(ResourcesConfig(gpus_per_planning_actor=0.5), two, 1)


def test_gpus_bound_the_runs_and_the_planning_actors() -> None:
    resources = ResourcesConfig(gpus_per_worker=0.5, gpus_per_planning_actor=0.25, cpus_per_worker=0.1)
    placement = place(resources, [Node(64, 1)], 10)
    assert placement.runs_at_once == 2
    assert placement.planning_actors == 4
    assert placement.planning_actors_per_run == 2


def test_a_run_does_not_straddle_nodes_that_are_too_small() -> None:
    """Two halves are 1 CPU in all, but no worker fits on either."""
    with pytest.raises(UserError, match="on 2 nodes"):
        place(ResourcesConfig(), [Node(0.5), Node(0.5)], 1)
    assert place(ResourcesConfig(num_workers=2), [Node(1), Node(1)], 3).runs_at_once == 1


def test_with_autoscaling_the_request_decides() -> None:
    placement = place(ResourcesConfig(autoscaling=True, runs_at_once=8, gpus_per_worker=1), [Node(2)], 40)
    assert (placement.runs_at_once, placement.gpus_per_run) == (8, 1)
    with pytest.raises(ValueError, match="runs_at_once"):
        ResourcesConfig(autoscaling=True)


@given(
    cpus=st.integers(1, 16),
    workers=st.integers(1, 3),
    worker=st.floats(0.05, 2),
    reading=st.floats(0.05, 1),
    actor=st.floats(0.05, 2),
    wanted=st.none() | st.integers(1, 16),
)
def test_no_mixture_of_training_and_planning_runs_exceeds_a_node(
    cpus: int, workers: int, worker: float, reading: float, actor: float, wanted: int | None
) -> None:
    """Nothing can deadlock: whatever phase each run is in, everything it asks for is there at once."""
    resources = ResourcesConfig(
        num_workers=workers,
        cpus_per_worker=worker,
        cpus_per_data_task=reading,
        cpus_per_planning_actor=actor,
        runs_at_once=wanted,
    )
    try:
        placement = place(resources, [Node(cpus)], 40)
    except UserError:
        assume(False)
        return
    trains = workers * (worker + reading)
    plans = placement.planning_actors_per_run * actor
    for planning in range(placement.runs_at_once + 1):
        training = placement.runs_at_once - planning
        demand = placement.runs_at_once * DRIVER_CPUS + training * trains + planning * plans
        assert demand <= cpus + 1e-6
