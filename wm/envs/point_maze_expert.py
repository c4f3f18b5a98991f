"""A driver for the point maze: the shortest way over cells, and a velocity controller."""

from __future__ import annotations

import numpy as np

from wm.contracts import World
from wm.envs.point_maze_layouts import Cell, Maze
from wm.envs.point_maze_model import CELL_OFFSET, centre_of

CRUISE_SPEED = 2.0  # units/s toward the next cell
APPROACH_RATE = 4.0  # 1/s: wanted speed per unit of distance, where that is below the cruise
VELOCITY_GAIN = 0.8  # action per unit/s of missing velocity; full throttle gives 1.185 units/s in a step


class PointMazeExpert:
    """Drives to `goal` and stays there; `Policy` for a point maze world only.

    It aims at the middle of the next cell on a shortest way, in the goal's cell at the goal, and asks for a velocity toward what
    it aims at; the action makes up for what is missing. The goal's own velocity is not sought: success ignores it.

    Attributes:
        goal: state (4,) that it tries to reach; zeros before the first `reset`.
    """

    def __init__(self) -> None:
        self.goal: np.ndarray = np.zeros(4)
        self._maze: Maze | None = None
        self._steps: dict[Cell, int] = {}  # to the goal's cell

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Draw a problem and put the world at its start.

        Raises:
            ValueError: not a point maze.
        """
        if world.name != "point_maze":
            raise ValueError(f"the point maze's expert cannot drive in world '{world.name}'")
        start, self.goal = world.sample_problem(rng)
        world.reset_to(start)
        self._maze = Maze.from_layout(world.layout)
        self._steps = self._maze.steps_from(_cell_of(self.goal))

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (2,), within -1..1; draws nothing. Raises RuntimeError before the first `reset`."""
        if self._maze is None:
            raise RuntimeError("reset comes before act")
        state = world.state
        ahead = self._aim(self._maze, state) - state[:2]
        distance = float(np.linalg.norm(ahead))
        wanted = ahead * min(APPROACH_RATE, CRUISE_SPEED / max(distance, 1e-9))
        return np.clip(VELOCITY_GAIN * (wanted - state[2:]), -1, 1)

    def _aim(self, maze: Maze, state: np.ndarray) -> np.ndarray:
        here = _cell_of(state)
        if self._steps[here] == 0:
            return self.goal[:2]
        return np.array(centre_of(min(maze.neighbours(here), key=lambda cell: self._steps[cell])))


def _cell_of(state: np.ndarray) -> Cell:
    row, column = np.rint(state[:2] + CELL_OFFSET).astype(int)
    return int(row), int(column)
