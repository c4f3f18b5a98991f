"""The cross-entropy method: sample plans, keep the best, refit, repeat."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.config.plan import CemConfig
from wm.contracts import Dynamics, Objective
from wm.planning.candidates import candidate_costs, plan_cost
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.warm_start import warm_start
from wm.types import Plan


class CemPlanner:
    """Fits a diagonal normal over action sequences to its own best samples.

    Each iteration draws N candidates a = mean + std * noise, with candidate 0 replaced by the mean itself, rolls them
    out, and sets mean and std (n - 1) to those of the `num_elites` cheapest. No smoothing and no clipping; the plan is
    the last mean.

    Args:
        config: sizes of the search.
        action_dim: A F, one model action.
        chunk_size: most candidates rolled out at once; None: all.
        noise: where the candidates' noise comes from.

    Source: Rubinstein 1999; as in DINO-WM (arXiv 2411.04983; planning/cem.py of its repository), less its stop on the
    simulator's success.
    """

    def __init__(
        self,
        config: CemConfig,
        action_dim: int,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
    ) -> None:
        self.config = config
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.noise = noise

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
        shape = (self.config.num_samples, self.horizon, self.action_dim)
        known = warm_start(start, self.horizon, self.action_dim, device)
        mean = torch.cat([known, torch.zeros(self.horizon - len(known), self.action_dim, device=device)])
        std = torch.full_like(mean, self.config.init_std)
        trace: dict[str, list[float]] = {"cost": [], "best_cost": [], "std": []}
        for _ in range(self.config.num_iterations):
            candidates = self.noise(shape, generator).to(device) * std + mean
            candidates[0] = mean  # its noise is drawn all the same: the stream does not depend on this choice
            cost = candidate_costs(dynamics, objective, context, goal, candidates, self.chunk_size)
            mean, std = refit(candidates, cost, self.config.num_elites, std)
            trace["cost"].append(float(cost[0]))
            trace["best_cost"].append(float(cost.min()))
            trace["std"].append(float(std.mean()))
        return Plan(mean, plan_cost(dynamics, objective, context, goal, mean), trace)


def elite_indices(cost: Tensor, num_elites: int) -> Tensor:
    """Indices of the `num_elites` lowest of the costs (N,), ascending; fewer when fewer are finite."""
    num_finite = int(cost.isfinite().sum())
    return cost.topk(min(num_elites, num_finite), largest=False, sorted=True).indices


def refit(candidates: Tensor, cost: Tensor, num_elites: int, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased std of the elites, each (H, A F); `std` stays where a single elite is left.

    Args:
        candidates: (N, H, A F).
        cost: (N,).
        std: what the candidates were drawn with, (H, A F).
    """
    elites = candidates[elite_indices(cost, num_elites)]
    return elites.mean(dim=0), elites.std(dim=0) if len(elites) > 1 else std
