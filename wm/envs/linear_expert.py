"""The expert of the linear world: its best plan, made anew at every step."""

from __future__ import annotations

import numpy as np

from wm.contracts import World
from wm.envs.linear import LinearWorld

LONGEST_PLAN = 30  # env steps


class LinearExpert:
    """Follows `LinearWorld.best_plan` with the fewest steps whose actions stay in the world's range, and holds the goal."""

    def __init__(self) -> None:
        self.goal: np.ndarray = np.zeros(0)

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world at the start of a problem, and take its goal."""
        start, self.goal = world.sample_problem(rng)
        world.reset_to(start)

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (A,). Raises ValueError for another world."""
        del rng
        if not isinstance(world, LinearWorld):
            raise ValueError(f"world '{world.name}' has no best plan; this expert is the linear world's")
        plan = world.best_plan(world.state, self.goal, 1)
        for horizon in range(2, LONGEST_PLAN + 1):
            if (plan >= world.action_low).all() and (plan <= world.action_high).all():
                break
            plan = world.best_plan(world.state, self.goal, horizon)
        return np.clip(plan[0], world.action_low, world.action_high)
