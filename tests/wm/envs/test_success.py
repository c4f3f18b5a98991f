"""Success rules at their edges; the recorded cases are in tests/golden."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wm.envs.success import point_maze_success, pusht_success, state_distance


def test_pusht_counts_agent_and_block_together():
    goal = np.zeros(7)
    assert pusht_success(np.array([14.0, 0, 14, 0, 0, 99, 99]), goal)  # 19.8
    assert not pusht_success(np.array([20.0, 0, 0, 0, 0, 0, 0]), goal)  # strict
    assert not pusht_success(np.array([15.0, 0, 15, 0, 0, 0, 0]), goal)  # 21.2


@pytest.mark.parametrize("turns", [0, 1, -3])
def test_pusht_angles_are_on_the_circle(turns):
    def at(angle: float) -> np.ndarray:
        return np.array([0, 0, 0, 0, angle + 2 * math.pi * turns])

    goal = np.zeros(5)
    assert pusht_success(at(0.34), goal)
    assert pusht_success(at(-0.34), goal)
    assert not pusht_success(at(0.36), goal)
    assert not pusht_success(at(math.pi), goal)


def test_the_original_lets_an_angle_pass_that_is_more_than_a_turn_off():
    upside_down = np.array([0, 0, 0, 0, 3 * math.pi])
    assert pusht_success(upside_down, np.zeros(5), wrap="original")
    assert not pusht_success(upside_down, np.zeros(5))


def test_point_maze_ignores_velocity():
    assert point_maze_success(np.array([0.3, 0.39, 9.0, 9.0]), np.zeros(4))
    assert not point_maze_success(np.array([0.3, 0.4, 0.0, 0.0]), np.zeros(4))  # exactly .5


def test_distance_is_over_the_whole_state():
    assert state_distance(np.array([3.0, 0.0, 4.0]), np.zeros(3)) == 5
