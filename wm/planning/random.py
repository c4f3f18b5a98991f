"""The control: how far do actions get that know nothing?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wm.config.plan import RandomConfig
from wm.contracts import Dynamics, Objective
from wm.planning.bounds import ActionBounds, within
from wm.planning.noise import NoiseSource, draw_noise, standard_normal
from wm.planning.warm_start import known_actions
from wm.types import Plan, WarmStart


class RandomPlanner:
    """Actions from N(0, 1) in normalised units, truncated within bounds. The model is never asked: the cost is NaN.

    Args:
        config: horizon.
        action_dim: A F, one model action.
        noise: where the actions come from.
        bounds: of normalised actions, or None.
    """

    def __init__(
        self,
        config: RandomConfig,
        action_dim: int,
        noise: NoiseSource = standard_normal,
        bounds: ActionBounds | None = None,
    ) -> None:
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.noise = noise
        self.bounds = bounds

    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: WarmStart | None,
        generators: Sequence[torch.Generator],
    ) -> Plan:
        """A fresh draw; of the arguments only the warm start's actions are kept, as every planner keeps them."""
        known = known_actions(start, len(context), self.horizon, self.action_dim, context.device)
        shape = (self.horizon - known.shape[1], self.action_dim)
        drawn = draw_noise(self.noise, shape, generators, context.device)
        if self.bounds is not None:
            drawn = self.bounds.truncated(torch.zeros_like(drawn), torch.ones_like(drawn), drawn)
        return Plan(within(self.bounds, torch.cat([known, drawn], dim=1)), torch.full((len(context),), math.nan))
