"""The reference's saved problems: read as it writes them, and never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import SIZE, user_error, wall_dataset
from wm.build import build_world
from wm.config.worlds import WallWorldConfig
from wm.evaluation.problems import dataset_problems
from wm.interop.plan_targets import load_plan_targets
from wm.types import Problem


def world() -> Any:
    return build_world(WallWorldConfig(frame_size=SIZE))


@pytest.fixture
def problems() -> list[Problem]:
    dataset = wall_dataset()
    return dataset_problems(
        world(), dataset.sources, dataset.held_out_episodes(), count=3, goal_horizon=2, frameskip=5, seed=0
    )


def targets(problems: list[Problem]) -> dict[str, Any]:
    """As planning's dump_targets writes them."""
    action = wall_dataset().statistics.action
    assert action is not None
    raw = np.stack([problem.gt_actions for problem in problems]).reshape(len(problems), 2, -1)
    return {
        **{
            f"obs_{end}": {
                "visual": np.stack([getattr(problem, f"frame_{end}")[None] for problem in problems]),
                "proprio": np.stack([getattr(problem, f"proprio_{end}")[None] for problem in problems]),
            }
            for end in ("0", "g")
        },
        "state_0": np.stack([problem.state_0 for problem in problems]),
        "state_g": np.stack([problem.state_g for problem in problems]),
        "gt_actions": torch.from_numpy(action.normalize(raw)).float(),
        "goal_H": 2,
    }


def saved(tmp_path: Path, content: Any, protocol: int = 4) -> Path:
    file = tmp_path / "plan_targets.pkl"
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    return file


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_problems_are_read_as_they_were(tmp_path: Path, problems: list[Problem], protocol: int) -> None:
    found = load_plan_targets(saved(tmp_path, targets(problems), protocol), wall_dataset().statistics, world())
    assert [each.id for each in found] == [f"plan_targets/{number}" for number in range(3)]
    for ours, theirs in zip(problems, found, strict=True):
        assert theirs.goal_horizon == 2
        for key in ("state_0", "state_g", "frame_0", "frame_g", "proprio_0", "proprio_g"):
            np.testing.assert_array_equal(getattr(theirs, key), getattr(ours, key))
        np.testing.assert_allclose(theirs.gt_actions, ours.gt_actions, atol=1e-5)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/wm_was_here",)


def test_nothing_in_the_file_is_run(tmp_path: Path, problems: list[Problem]) -> None:
    message = user_error(
        lambda: load_plan_targets(
            saved(tmp_path, {**targets(problems), "x": Evil()}), wall_dataset().statistics, world()
        )
    )
    assert "system is not part of planning targets; nothing in the file was run" in message
    assert not Path("/tmp/wm_was_here").exists()


def test_what_does_not_fit_is_named(tmp_path: Path, problems: list[Problem]) -> None:
    def fault(content: Any) -> str:
        file = content if isinstance(content, Path) else saved(tmp_path, content)
        return user_error(lambda: load_plan_targets(file, wall_dataset().statistics, world()))

    whole = targets(problems)
    assert "no state_g, goal_H" in fault(
        {key: value for key, value in whole.items() if key not in ("state_g", "goal_H")}
    )
    assert "state_0 is [3] a problem, but world 'wall' has [2]" in fault({**whole, "state_0": np.zeros((3, 3))})
    assert "gt_actions are [3, 2, 7]" in fault({**whole, "gt_actions": torch.zeros(3, 2, 7)})
    assert "not a plan_targets.pkl" in fault([1, 2])
    cut = saved(tmp_path, whole)
    cut.write_bytes(cut.read_bytes()[:200])
    assert "unreadable" in fault(cut)
