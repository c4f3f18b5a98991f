"""Model-predictive path integral: every sample counts, by the exponential of its cost."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.config.plan import MppiConfig
from wm.planning.bounds import ActionBounds
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.sampling import SamplingPlanner


class MppiPlanner(SamplingPlanner):
    """Moves a diagonal normal over action sequences to its cost-weighted samples.

    w_i = softmax_i(-(c_i - min c) / (temperature * (median c - min c))), mean = sum_i w_i a_i,
    std^2 = sum_i w_i (a_i - mean)^2 / (1 - sum_i w_i^2), the unbiased weighted variance. The temperature has no unit.

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
        bounds: ActionBounds | None = None,
    ) -> None:
        super().__init__(config, action_dim, chunk_size, noise, bounds)
        self._temperature = config.temperature

    def refit(self, candidates: Tensor, cost: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return refit(candidates, path_weights(cost, self._temperature), std)


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
