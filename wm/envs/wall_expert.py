"""A scripted expert for the Wall world: straight to the goal, through the door where the wall is in between."""

from __future__ import annotations

import math

import numpy as np

from wm.contracts import World
from wm.envs.wall_rule import PIXELS_PER_ACTION, WALL_HALF_THICKNESS

APPROACH = 2.0  # pixels between the wall's faces and the places where a crossing begins and ends
IN_LINE = 2.0  # pixels off the door's centre from which a straight crossing clears its ends


class WallExpert:
    """Walks the shortest way of straight lines: to the door, through it at its centre, to the goal, and stays there.

    It chooses from the state alone, so that noise on its actions does not lead it astray.

    Args:
        max_step: length of the longest action, half pixels.
    """

    def __init__(self, max_step: float = 1.8) -> None:
        if max_step <= 0:
            raise ValueError(f"max_step is {max_step}, expected more than 0")
        self.max_step = max_step
        self.goal: np.ndarray = np.zeros(2)

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world at the start of a problem, and take its goal."""
        start, self.goal = world.sample_problem(rng)
        world.reset_to(start)

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (2,), half pixels; zero at the goal."""
        del rng
        position = world.state
        ahead = (self._target(position, world.layout["wall_x"], world.layout["door_y"]) - position) / PIXELS_PER_ACTION
        length = float(np.linalg.norm(ahead))
        return ahead if length <= self.max_step else ahead * (self.max_step / length)

    def _target(self, position: np.ndarray, wall_x: float, door_y: float) -> np.ndarray:
        beyond = math.copysign(1.0, self.goal[0] - wall_x)
        across = beyond * (position[0] - wall_x)  # pixels past the wall's centre, seen from the start
        if across > WALL_HALF_THICKNESS:
            return self.goal
        reach = WALL_HALF_THICKNESS + APPROACH
        in_line = abs(position[1] - door_y) <= IN_LINE and across >= -reach - PIXELS_PER_ACTION * self.max_step
        inside = abs(across) <= WALL_HALF_THICKNESS
        return np.array([wall_x + (beyond * reach if in_line or inside else -beyond * reach), door_y])
