"""A simulator that takes its process down fails the planning problem it was on, after three tries, and no other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.plan import plan_checkpoints
from ray_jobs.runtime.progress import Narrator
from tests.ray_jobs.crashing_world import STEPS_BEFORE
from tests.wm.data import samples


@pytest.mark.ray
@pytest.mark.slow
def test_a_dead_simulator_fails_its_problem(tmp_path: Path, ray_cluster: Any) -> None:
    run = samples.inputs(tmp_path / "home")
    samples.train(run)
    world = {
        "kind": "custom",
        "target": "tests.ray_jobs.crashing_world:CrashingWorld",
        "frame_size": samples.SIZE,
        "config.beyond": 32.0,
        "config.spared_pid": os.getpid(),  # it also draws the problems, here
    }
    given = [f"storage.root={tmp_path / 'home'}", "plan.episodes=4", "plan.max_iterations=1"]
    given += [f"plan.world.{name}={value}" for name, value in world.items()]
    given += ["resources.planning_actors=2"]
    planned = plan_checkpoints([run.folder.path], given, tmp_path / "out", Narrator(Console(quiet=True)))
    (outcomes,) = planned[0].outcomes.values()
    assert len(outcomes) == 4
    died = [outcome for outcome in outcomes if outcome.failure is not None]
    assert 0 < len(died) < 4
    assert all(outcome.failure.startswith("its process died: ") for outcome in died)  # type: ignore[union-attr]
    for outcome in outcomes:
        if outcome.failure is None:
            assert outcome.states[0][0] <= 32
            assert len(outcome.states) > STEPS_BEFORE
