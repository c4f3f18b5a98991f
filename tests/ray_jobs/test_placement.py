"""The arithmetic before Ray starts."""

from __future__ import annotations

import pytest

from ray_jobs.runtime.placement import DRIVER_CPUS, place
from wm.config.errors import UserError
from wm.config.platform import ResourcesConfig


@pytest.mark.parametrize(("cpus", "runs"), [(1, 1), (2, 2), (4, 4), (16, 6)])
def test_defaults_fit_and_leave_room_for_reading(cpus: int, runs: int) -> None:
    resources = ResourcesConfig()
    placement = place(resources, cpus, 0, 6)
    assert placement.runs_at_once == runs
    used = runs * (DRIVER_CPUS + resources.cpus_per_worker + resources.cpus_per_data_task)
    assert used <= cpus
    assert placement.planning_actors == cpus


def test_impossible_requests_are_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"needs 2\.86 CPUs .* there are 2;"):
        place(ResourcesConfig(num_workers=3), 2, 0, 1)
    with pytest.raises(UserError, match="needs 1 GPUs, but there are 0"):
        place(ResourcesConfig(gpus_per_worker=1), 2, 0, 1)
    with pytest.raises(UserError, match=r"3 runs need 2\.88 CPUs .* at most 2"):
        place(ResourcesConfig(runs_at_once=3), 2, 0, 6)
    with pytest.raises(UserError, match="5 actors need 5 CPUs, but there are 2"):
        place(ResourcesConfig(planning_actors=5), 2, 0, 1)


def test_gpus_bound_the_runs() -> None:
    resources = ResourcesConfig(gpus_per_worker=0.5, cpus_per_worker=0.1)
    assert place(resources, 64, 1, 10).runs_at_once == 2
