"""The point maze against the original's model and rule, stepped in MuJoCo 3.9, and its problems."""

from __future__ import annotations

import numpy as np

from tests.golden.case import Golden
from wm.config.worlds import PointMazeWorldConfig
from wm.envs.point_maze import PointMazeWorld, sample_original_problem

STATE_TOLERANCE = 1e-8


def check_point_maze(case: Golden) -> None:
    """The U maze, whole."""
    for sequence in range(len(case.arrays["in/init_state"])):
        check_point_maze_sequence(case, sequence)
    check_point_maze_sampling(case)


def check_point_maze_sequence(case: Golden, sequence: int) -> None:
    a = case.arrays
    world = PointMazeWorld(PointMazeWorldConfig(frame_size=16))
    world.reset_to(a["in/init_state"][sequence])
    states = np.stack([world.state, *(world.step(action) for action in a["in/actions"][sequence])])
    np.testing.assert_allclose(states, a["out/states"][sequence], rtol=0, atol=STATE_TOLERANCE)


def check_point_maze_sampling(case: Golden) -> None:
    a = case.arrays
    for seed, start, goal in zip(a["in/sample_seeds"], a["out/sample_init"], a["out/sample_goal"], strict=True):
        np.testing.assert_array_equal(sample_original_problem(int(seed)), [start, goal])
