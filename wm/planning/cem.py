"""The cross-entropy method: sample plans, keep the best, refit, repeat."""

from __future__ import annotations

from torch import Tensor

from wm.config.plan import CemConfig
from wm.planning.bounds import ActionBounds
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.sampling import SamplingPlanner


class CemPlanner(SamplingPlanner):
    """Fits a diagonal normal over action sequences to its own best samples: mean and std (n - 1) of the `num_elites` cheapest.

    Source: Rubinstein 1999; as in DINO-WM (arXiv 2411.04983; planning/cem.py of its repository), less its stop on the
    simulator's success.
    """

    def __init__(
        self,
        config: CemConfig,
        action_dim: int,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
        bounds: ActionBounds | None = None,
    ) -> None:
        super().__init__(config, action_dim, chunk_size, noise, bounds)
        self._num_elites = config.num_elites

    def refit(self, candidates: Tensor, cost: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return refit(candidates, cost, self._num_elites, std)


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
