"""What sampling planners share: draw plans from a diagonal normal, roll them out, refit, repeat."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from wm.config.plan import CemConfig, MppiConfig
from wm.contracts import Dynamics, Objective
from wm.planning.candidates import candidate_costs, plan_cost
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.warm_start import warm_start
from wm.types import Plan


class SamplingPlanner(ABC):
    """Each iteration draws N candidates a = mean + std * noise, with candidate 0 replaced by the mean itself, and refits.

    The plan is the last mean. Nothing is smoothed or clipped.

    Args:
        config: sizes of the search.
        action_dim: A F, one model action.
        chunk_size: most candidates rolled out at once; None: all.
        noise: where the candidates' noise comes from.
    """

    def __init__(
        self,
        config: CemConfig | MppiConfig,
        action_dim: int,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
    ) -> None:
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.noise = noise
        self._num_samples, self._num_iterations = config.num_samples, config.num_iterations
        self._init_std = config.init_std

    @abstractmethod
    def refit(self, candidates: Tensor, cost: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """The next mean and std, each (H, A F), from candidates (N, H, A F), their costs (N,) and the std they had."""

    @torch.no_grad()  # not inference_mode: its tensors could not warm-start the gradient planner
    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: Tensor | None,
        generator: torch.Generator,
    ) -> Plan:
        """Plan from context (1, T, ...) to goal (1, 1, ...); zeros follow a warm start shorter than the horizon."""
        device = context.device
        shape = (self._num_samples, self.horizon, self.action_dim)
        known = warm_start(start, self.horizon, self.action_dim, device)
        mean = torch.cat([known, torch.zeros(self.horizon - len(known), self.action_dim, device=device)])
        std = torch.full_like(mean, self._init_std)
        trace: dict[str, list[float]] = {"cost": [], "best_cost": [], "std": []}
        for _ in range(self._num_iterations):
            candidates = self.noise(shape, generator).to(device) * std + mean
            candidates[0] = mean  # its noise is drawn all the same: the stream does not depend on this choice
            cost = candidate_costs(dynamics, objective, context, goal, candidates, self.chunk_size)
            mean, std = self.refit(candidates, cost, std)
            trace["cost"].append(float(cost[0]))
            trace["best_cost"].append(float(cost.min()))
            trace["std"].append(float(std.mean()))
        return Plan(mean, plan_cost(dynamics, objective, context, goal, mean), trace)
