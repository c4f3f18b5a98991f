"""`wm plan`: outcomes on disk are used again only for the same checkpoint and the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ray_jobs.plan as plan
from ray_jobs.runtime.progress import Narrator
from tests.wm.data import samples
from wm.training.checkpoint import list_checkpoints


@pytest.fixture
def solved_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plan here instead of on actors; returns the outcome files that were not there yet."""
    from contextlib import nullcontext

    from ray_jobs.runtime.placement import Node
    from ray_jobs.runtime.planning import PlanTask, Solver, read_outcome

    fresh: list[str] = []

    def solve_all(tasks: list[PlanTask], num_actors: int, resources: Any, done: Any) -> None:
        for task in tasks:
            found = read_outcome(Path(task.out))
            if found is None:
                fresh.append(task.out)
            done(task, found or Solver().solve([task])[0])

    monkeypatch.setattr(plan, "cluster", lambda: nullcontext([Node(2)]))
    monkeypatch.setattr(plan, "solve_all", solve_all)
    return fresh


def test_another_planner_or_checkpoint_is_planned_anew(tmp_path: Path, solved_in_process: list[str]) -> None:
    run = samples.inputs(tmp_path / "home", train__checkpoint_every_steps=3)
    samples.train(run)
    checkpoints = list_checkpoints(run.folder.checkpoints)
    assert len(checkpoints) == 2

    def planned(path: Path, *overrides: str) -> int:
        solved_in_process.clear()
        given = [f"storage.root={tmp_path / 'home'}", "plan.episodes=2", "plan.max_iterations=1", *overrides]
        plan.plan_checkpoint(path, given, tmp_path / "out", Narrator(Console(quiet=True)))
        return len(solved_in_process)

    assert planned(run.folder.path) == 2
    assert planned(run.folder.path) == 0
    assert planned(checkpoints[-1]) == 0
    assert planned(checkpoints[0]) == 2
    assert planned(run.folder.path, "plan.planner.kind=mppi") == 2
