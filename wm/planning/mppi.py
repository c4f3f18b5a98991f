"""Model-predictive path integral: every sample counts, by the exponential of its cost."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.config.plan import MppiConfig
from wm.contracts import Dynamics, Objective
from wm.planning.candidates import candidate_costs, plan_cost
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.warm_start import warm_start
from wm.types import Plan


class MppiPlanner:
    """Moves a diagonal normal over action sequences to its cost-weighted samples.

    Each iteration draws candidates as CEM does (candidate 0 is the mean) and sets
    w_i = softmax_i(-(c_i - min c) / (temperature * (median c - min c))), mean = sum_i w_i a_i,
    std^2 = sum_i w_i (a_i - mean)^2 / (1 - sum_i w_i^2), the unbiased weighted variance.

    Args:
        config: sizes of the search; the temperature has no unit.
        action_dim: A F, one model action.
        chunk_size: most candidates rolled out at once; None: all.
        noise: where the candidates' noise comes from.

    Source: Williams et al. 2017, Information theoretic MPC for model-based reinforcement learning. Differences:
    costs are divided by their own spread, so one temperature fits latents of any scale (median, not standard deviation:
    one exploded rollout would flatten every weight); the control-cost term is left out, as the objective has none; std
    is refitted over several iterations, as in TD-MPC (Hansen et al. 2022), where Williams et al. keep it fixed.
    """

    def __init__(
        self,
        config: MppiConfig,
        action_dim: int,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
    ) -> None:
        self.config = config
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.noise = noise

    @torch.no_grad()
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
            candidates[0] = mean
            cost = candidate_costs(dynamics, objective, context, goal, candidates, self.chunk_size)
            weights = path_weights(cost, self.config.temperature)
            mean, std = refit(candidates, weights, std)
            trace["cost"].append(float(cost[0]))
            trace["best_cost"].append(float(cost.min()))
            trace["std"].append(float(std.mean()))
        return Plan(mean, plan_cost(dynamics, objective, context, goal, mean), trace)


def path_weights(cost: Tensor, temperature: float) -> Tensor:
    """Weights (N,) that sum to one, unchanged when all costs are shifted or scaled; equal costs weigh the same.

    Args:
        cost: (N,), at least one finite; an infinite cost weighs nothing and does not widen the spread.
    """
    finite = cost[cost.isfinite()]
    spread = (finite.median() - finite.min()).clamp_min(torch.finfo(cost.dtype).tiny)
    return torch.softmax(-(cost - finite.min()) / (temperature * spread), dim=0)


def refit(candidates: Tensor, weights: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and unbiased weighted std, each (H, A F); `std` stays where one candidate holds all the weight.

    Args:
        candidates: (N, H, A F).
        weights: (N,), sum one.
        std: what the candidates were drawn with, (H, A F).
    """
    per_candidate = weights[:, None, None]
    mean = (per_candidate * candidates).sum(dim=0)
    freedom = 1 - weights.square().sum()
    if freedom <= torch.finfo(weights.dtype).eps:
        return mean, std
    return mean, ((per_candidate * (candidates - mean).square()).sum(dim=0) / freedom).sqrt()
