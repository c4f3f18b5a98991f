"""CEM that needs fewer samples: coloured noise, elites that are remembered, momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wm.config.plan import IcemConfig
from wm.contracts import Dynamics, Objective
from wm.planning.anytime import at_iteration
from wm.planning.bounds import ActionBounds, within
from wm.planning.candidates import candidate_costs
from wm.planning.cem import elite_indices, refit
from wm.planning.noise import NoiseSource, coloured, draw_noise, standard_normal
from wm.planning.sampling import initial_mean, sample
from wm.types import Plan, WarmStart


class IcemPlanner:
    """The plan is the cheapest candidate that was rolled out in the last iteration.

    Iteration i draws max(N / decay^i, 2 elites) candidates from the normal with coloured noise; to them come a share of the last
    iteration's elites (in the first: of the last plan's, shifted, with drawn actions at their end) and, in the last iteration,
    the mean. mean <- m mean + (1 - m) mean of elites; std likewise.

    Args:
        config: sizes of the search.
        action_dim: A F, one model action.
        frameskip: F, env steps of a model action: noise is coloured along env steps.
        chunk_size: most candidates rolled out at once, of all problems together; None: all.
        noise: where the white noise comes from.
        bounds: of normalised actions, or None.

    Source: Pinneri et al. 2020, Sample-efficient cross-entropy method for real-time planning, algorithm 1. Differences: within
    bounds the normal is truncated, not clipped; the plan is whole, for `execute_steps` may be more than one; candidates that the
    model cannot judge are no elites.
    """

    def __init__(
        self,
        config: IcemConfig,
        action_dim: int,
        frameskip: int = 1,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
        bounds: ActionBounds | None = None,
    ) -> None:
        self.config = config
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.frameskip = frameskip
        self.chunk_size = chunk_size
        self.noise = noise
        self.bounds = bounds

    @torch.no_grad()
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
        config = self.config
        mean = initial_mean(start, len(context), self.horizon, self.action_dim, context.device)
        mean = within(self.bounds, mean)
        std = torch.full_like(mean, config.init_std)
        kept = None if start is None or start.candidates is None else within(self.bounds, start.candidates.to(mean))
        trace: dict[str, list[Tensor]] = {"cost": [], "best_cost": [], "std": []}
        elites, costs = mean[:, None], torch.empty(0)
        for iteration in range(config.num_iterations):
            last = iteration == config.num_iterations - 1
            candidates = self._draw(iteration, mean, std, generators)
            if kept is not None:
                end = candidates[:, : kept.shape[1], kept.shape[2] :]
                candidates = torch.cat([candidates, torch.cat([kept, end], dim=2)], dim=1)
            if last:
                candidates = torch.cat([mean[:, None], candidates], dim=1)
            imagined = (
                dynamics if last else at_iteration(dynamics, iteration)
            )  # the last iteration's cost is the plan's
            costs = candidate_costs(imagined, objective, context, goal, candidates, self.chunk_size)
            chosen = [elite_indices(cost, config.num_elites) for cost in costs]
            # Problems with fewer finite costs than elites repeat their best: all rows keep one length.
            chosen = [torch.cat([rows, rows[:1].expand(config.num_elites - len(rows))]) for rows in chosen]
            elites = torch.stack([of[rows] for of, rows in zip(candidates, chosen, strict=True)])
            refitted = [
                refit(of, cost, config.num_elites, wide) for of, cost, wide in zip(candidates, costs, std, strict=True)
            ]
            new_mean, new_std = (torch.stack(values) for values in zip(*refitted, strict=True))
            mean = within(self.bounds, config.momentum * mean + (1 - config.momentum) * new_mean)
            std = config.momentum * std + (1 - config.momentum) * new_std
            kept = self._kept(elites)
            trace["cost"].append(costs.mean(dim=1))
            trace["best_cost"].append(costs.amin(dim=1))
            trace["std"].append(std.mean(dim=(1, 2)))
        curves = {name: torch.stack(values, dim=1) for name, values in trace.items()}
        return Plan(elites[:, 0], costs.amin(dim=1), curves, self._kept(elites))

    def _draw(self, iteration: int, mean: Tensor, std: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        config = self.config
        count = max(round(config.num_samples / config.decay**iteration), 2 * config.num_elites)
        shape = (count, self.horizon, self.action_dim)
        white = draw_noise(self.noise, shape, generators, mean.device)
        return sample(mean, std, coloured(white, config.noise_beta, self.frameskip), self.bounds)

    def _kept(self, elites: Tensor) -> Tensor | None:
        count = round(self.config.keep * self.config.num_elites)
        return elites[:, :count] if count else None
