"""When a state counts as the goal: the original's rules, as functions of numbers. All inequalities are strict.

Source: gaoyuezhou/dino_wm 0a9492f, env/*/ (facts: tests/golden/dino_wm, case metrics_success).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

PUSHT_POSITION, PUSHT_ANGLE = 20.0, math.pi / 9  # pixels of the 512 x 512 plane, radians
POINT_MAZE_POSITION = 0.5  # metres


def state_distance(state: np.ndarray, goal: np.ndarray) -> float:
    """Euclidean distance over the whole state, whatever its units."""
    return float(np.linalg.norm(np.asarray(state, np.float64) - np.asarray(goal, np.float64)))


def pusht_success(state: np.ndarray, goal: np.ndarray, wrap: Literal["circle", "original"] = "circle") -> bool:
    """Agent and block within 20 pixels together, the block's angle within 20 degrees.

    Args:
        state, goal: agent x, y, block x, y, block angle, and whatever follows.
        wrap: `circle` measures angles on the circle. `original` takes min(d, 2 pi - d) without reducing d first, so that an angle more
            than a turn off always passes; to compare with its numbers alone.
    """
    apart = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
    turn = abs(float(apart[4]))
    turn = turn % (2 * math.pi) if wrap == "circle" else turn
    angle = min(turn, 2 * math.pi - turn)
    return bool(np.linalg.norm(apart[:4]) < PUSHT_POSITION) and angle < PUSHT_ANGLE


def point_maze_success(state: np.ndarray, goal: np.ndarray) -> bool:
    """The ball within half a metre; its velocity does not count."""
    apart = np.asarray(state, np.float64)[:2] - np.asarray(goal, np.float64)[:2]
    return bool(np.linalg.norm(apart) < POINT_MAZE_POSITION)
