"""The waypoint controllers, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import CanWorldConfig, LiftWorldConfig, SquareWorldConfig, StackWorldConfig, WallWorldConfig
from wm.contracts import Policy
from wm.envs.robosuite_expert import RobosuiteExpert


def episode(world: Any, seed: int, num_steps: int) -> tuple[bool, bool]:
    """Whether the task is done at the end, and whether the goal is reached."""
    expert, rng = RobosuiteExpert(), np.random.default_rng([0, seed])
    expert.reset(world, rng)
    for _ in range(num_steps):
        world.step(expert.act(world, rng))
    return world.task_success(world.state), world.success(world.state, expert.goal)


def test_lifts_the_cube() -> None:
    assert isinstance(RobosuiteExpert(), Policy)
    assert episode(build_world(LiftWorldConfig(frame_size=32)), seed=0, num_steps=60) == (True, True)


def test_refuses_what_it_cannot_drive() -> None:
    for config in (WallWorldConfig(), LiftWorldConfig(frame_size=32, control="joint")):
        with pytest.raises(ValueError, match="is not a robosuite world with control osc_pose"):
            RobosuiteExpert().reset(build_world(config), np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "num_steps"),
    [(LiftWorldConfig, 80), (StackWorldConfig, 150), (CanWorldConfig, 220), (SquareWorldConfig, 220)],
)
def test_does_the_task(config: Any, num_steps: int) -> None:
    world = build_world(config(frame_size=32))
    assert np.mean([episode(world, seed, num_steps)[0] for seed in range(10)]) >= 0.9
