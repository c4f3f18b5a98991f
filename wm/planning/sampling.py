"""What sampling planners share: draw plans from a diagonal normal, roll them out, refit, repeat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from wm.config.plan import CemConfig, MppiConfig
from wm.contracts import Dynamics, Objective
from wm.planning.anytime import at_iteration
from wm.planning.bounds import ActionBounds, within
from wm.planning.candidates import candidate_costs, plan_cost
from wm.planning.noise import NoiseSource, draw_noise, standard_normal
from wm.planning.warm_start import known_actions
from wm.types import Plan, WarmStart


class SamplingPlanner(ABC):
    """Each iteration draws N candidates a = mean + std * noise, with candidate 0 replaced by the mean itself, and refits.

    The plan is the last mean. Within bounds the normal is truncated; nothing is smoothed.

    Args:
        config: sizes of the search.
        action_dim: A F, one model action.
        chunk_size: most candidates rolled out at once, of all problems together; None: all.
        noise: where the candidates' noise comes from.
        bounds: of normalised actions; None: unbounded, as the reference.
    """

    def __init__(
        self,
        config: CemConfig | MppiConfig,
        action_dim: int,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
        bounds: ActionBounds | None = None,
    ) -> None:
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.chunk_size = chunk_size
        self.noise = noise
        self.bounds = bounds
        self._num_samples, self._num_iterations = config.num_samples, config.num_iterations
        self._init_std = config.init_std

    @abstractmethod
    def refit(self, candidates: Tensor, cost: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """One problem's next mean and std, each (H, A F), from candidates (N, H, A F), their costs (N,) and the std they had."""

    @torch.no_grad()  # not inference_mode: its tensors could not warm-start the gradient planner
    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: WarmStart | None,
        generators: Sequence[torch.Generator],
    ) -> Plan:
        """Plan from context (B, T, ...) to goal (B, 1, ...); zeros follow a warm start shorter than the horizon."""
        mean = initial_mean(start, len(context), self.horizon, self.action_dim, context.device)
        mean = within(self.bounds, mean)
        std = torch.full_like(mean, self._init_std)
        shape = (self._num_samples, self.horizon, self.action_dim)
        trace: dict[str, list[Tensor]] = {"cost": [], "best_cost": [], "std": []}
        for iteration in range(self._num_iterations):
            noise = draw_noise(self.noise, shape, generators, context.device)
            candidates = sample(mean, std, noise, self.bounds)
            candidates[:, 0] = mean  # its noise is drawn all the same: the stream does not depend on this choice
            cheap = at_iteration(dynamics, iteration)
            cost = candidate_costs(cheap, objective, context, goal, candidates, self.chunk_size)
            refitted = [self.refit(*of) for of in zip(candidates, cost, std, strict=True)]
            mean, std = (torch.stack(values) for values in zip(*refitted, strict=True))
            mean = within(self.bounds, mean)  # a mean of elites at a bound may round beyond it
            trace["cost"].append(cost[:, 0])
            trace["best_cost"].append(cost.amin(dim=1))
            trace["std"].append(std.mean(dim=(1, 2)))
        found = plan_cost(dynamics, objective, context, goal, mean, self.chunk_size)
        return Plan(mean, found, {name: torch.stack(values, dim=1) for name, values in trace.items()})


def initial_mean(start: WarmStart | None, problems: int, horizon: int, action_dim: int, device: torch.device) -> Tensor:
    """(B, H, A F): what the warm start knows, then zeros."""
    known = known_actions(start, problems, horizon, action_dim, device)
    return torch.cat([known, torch.zeros(problems, horizon - known.shape[1], action_dim, device=device)], dim=1)


def sample(mean: Tensor, std: Tensor, noise: Tensor, bounds: ActionBounds | None) -> Tensor:
    """Candidates (B, N, H, A F) of the normal (B, H, A F), truncated where there are bounds."""
    mean, std = mean[:, None], std[:, None]
    return noise * std + mean if bounds is None else bounds.truncated(mean, std, noise)
