"""The point maze's expert arrives, and stays."""

from __future__ import annotations

import numpy as np
import pytest

from wm.config.worlds import PointMazeWorldConfig, WallWorldConfig
from wm.contracts import Policy
from wm.envs.point_maze import PointMazeWorld
from wm.envs.point_maze_expert import PointMazeExpert
from wm.envs.wall import WallWorld

EPISODES, STEPS = 50, 120


@pytest.mark.parametrize("shift", ["none", "agent_size"])
@pytest.mark.parametrize("layout", ["umaze", "medium", "random"])
def test_it_arrives_and_stays(layout: str, shift: str) -> None:
    world = PointMazeWorld(PointMazeWorldConfig.model_validate({"layout": layout, "shift": shift}))
    expert = PointMazeExpert()
    assert isinstance(expert, Policy)
    at_the_goal = 0
    for episode in range(EPISODES):
        rng = np.random.default_rng([0, episode])
        world.set_layout(world.sample_layout(rng))
        expert.reset(world, rng)
        assert not world.success(world.state, expert.goal)
        for _ in range(STEPS):
            action = expert.act(world, rng)
            assert np.abs(action).max() <= 1
            world.step(action)
        at_the_goal += world.success(world.state, expert.goal)
    assert at_the_goal >= 0.9 * EPISODES


def test_its_problem_is_the_world_s() -> None:
    world, expert = PointMazeWorld(PointMazeWorldConfig()), PointMazeExpert()
    start, goal = world.sample_problem(np.random.default_rng(3))
    expert.reset(world, np.random.default_rng(3))
    np.testing.assert_array_equal(world.state, start)
    np.testing.assert_array_equal(expert.goal, goal)


def test_other_worlds_and_no_reset_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot drive in world 'wall'"):
        PointMazeExpert().reset(WallWorld(WallWorldConfig()), np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="reset comes before"):
        PointMazeExpert().act(PointMazeWorld(PointMazeWorldConfig()), np.random.default_rng(0))
