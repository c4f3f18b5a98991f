"""Goals that can be reached, because something reached them."""

from __future__ import annotations

import numpy as np

from wm.contracts import Policy, World

_TRIES = 20


def reachable_goal(world: World, policy: Policy, rng: np.random.Generator, steps: int) -> np.ndarray:
    """The state (S,) that a policy reaches within some env steps; the world is left where that way began.

    The policy puts the world at a start of its own. An end that already counts as the start (`world.success`) is drawn again.

    Args:
        steps: env steps from the start to the goal, at least 1.

    Raises:
        ValueError: no steps, or the policy never gets away from its start.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    for _ in range(_TRIES):
        policy.reset(world, rng)
        begun, start = world.snapshot(), world.state
        for _ in range(steps):
            world.step(policy.act(world, rng))
        reached = world.state
        world.restore(begun)
        if not world.success(start, reached):
            return reached
    raise ValueError(
        f"world '{world.name}': in {_TRIES} tries of {steps} steps the policy never left its start by more than a success"
    )
