"""The control: how far do actions get that know nothing?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wm.config.plan import RandomConfig
from wm.contracts import Dynamics, Objective
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.warm_start import warm_start
from wm.types import Plan


class RandomPlanner:
    """Actions from N(0, 1) in normalised units. The model is never asked, so the cost is unknown: NaN.

    Args:
        config: horizon.
        action_dim: A F, one model action.
        noise: where the actions come from.
    """

    def __init__(self, config: RandomConfig, action_dim: int, noise: NoiseSource = standard_normal) -> None:
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.noise = noise

    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: Tensor | None,
        generator: torch.Generator,
    ) -> Plan:
        """A fresh draw; of the arguments only the warm start's actions are kept, as every planner keeps them."""
        known = warm_start(start, self.horizon, self.action_dim, context.device)
        unknown = self.noise((self.horizon - len(known), self.action_dim), generator).to(context.device)
        return Plan(torch.cat([known, unknown]), math.nan)
