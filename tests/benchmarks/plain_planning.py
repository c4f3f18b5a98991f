"""Planning as the reference does it, written out: what ours is measured against, and checked against.

Problems one after another. At every iteration each sample's start frame goes through the encoder again, and every window goes whole
through a predictor whose attention is the formula with a mask. The goal is encoded once.

Source: gaoyuezhou/dino_wm, planning/cem.py and models/visual_world_model.py (facts: SCIENCE sections 1 and 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wm.config.plan import CemConfig
from wm.contracts import Encoder
from wm.models.world_model import WorldModel
from wm.types import Observation


@dataclass(frozen=True)
class PlainPlan:
    """Plans (B, H, A F), and what was tried on the way: candidates (I, B, N, H, A F) and their costs (I, B, N)."""

    actions: Tensor
    candidates: Tensor
    costs: Tensor


class PlainWorld:
    """Costs of candidate actions, everything computed anew for each of them. The model's attention should be `plain`."""

    def __init__(self, encoder: Encoder, model: WorldModel, start: Observation, goal: Observation) -> None:
        self.encoder = encoder
        self.model = model
        self.start = start
        self.goals = model.visual(self.encode(goal))

    @torch.no_grad()
    def cost(self, problem: int, actions: Tensor) -> Tensor:
        """Candidates (N, H, A F) of one problem -> mean squared distance of the last frame to the goal, (N,)."""
        row = slice(problem, problem + 1)
        start = self.start.map(lambda values: values[row].repeat_interleave(len(actions), dim=0))
        goal = self.goals[row].repeat_interleave(len(actions), dim=0)
        last = self.model.visual(self.rollout(start, actions))[:, -1:]
        return (last - goal).square().flatten(1).mean(dim=1)

    def rollout(self, obs: Observation, actions: Tensor) -> Tensor:
        """The content of the frames given (N, T, ...) and of those that follow under all actions (N, H, A F): T + H - T + 1."""
        given, history = obs.visual.shape[1], self.model.history_len
        content = self.encode(obs)
        latent = self.model.with_actions(content, actions[:, :given])
        for step in range(given, actions.shape[1] + 1):
            predicted = self.model.predict(latent[:, -history:])[:, -1:]
            content = torch.cat([content, predicted], dim=1)
            if step < actions.shape[1]:
                latent = torch.cat([latent, self.model.with_actions(predicted, actions[:, step : step + 1])], dim=1)
        return content

    def encode(self, obs: Observation) -> Tensor:
        """Pixels -> content."""
        return self.model.encode_content(Observation(self.encoder.encode(obs.visual), obs.proprio))


def plain_cem(
    config: CemConfig,
    mean: Tensor,
    cost: Callable[[int, Tensor], Tensor],
    draw: Callable[[int], Tensor],
) -> PlainPlan:
    """CEM, a problem at a time within each iteration.

    Args:
        mean: of the first candidates, (B, H, A F).
        cost: of a problem's candidates (N, H, A F).
        draw: a problem's next noise (N, H, A F).
    """
    mean, std = mean.clone(), torch.full_like(mean, config.init_std)
    candidates, costs = [], []
    for _ in range(config.num_iterations):
        for problem in range(len(mean)):
            actions = draw(problem) * std[problem] + mean[problem]
            actions[0] = mean[problem]
            found = cost(problem, actions)
            elites = actions[found.argsort()[: config.num_elites]]
            mean[problem], std[problem] = elites.mean(dim=0), elites.std(dim=0)
            candidates.append(actions)
            costs.append(found)
    shape = (config.num_iterations, len(mean))
    return PlainPlan(mean, torch.stack(candidates).unflatten(0, shape), torch.stack(costs).unflatten(0, shape))
