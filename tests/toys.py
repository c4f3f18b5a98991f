"""Dynamics whose best plan is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tests.golden.planners import LinearDynamics
from wm.config.plan import ObjectiveConfig
from wm.contracts import Objective, Planner
from wm.planning import LatentObjective
from wm.types import Observation, Plan, WarmStart


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One for each problem."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@dataclass
class LinearProblem:
    """B starts, goals out of reach, and the actions (B, H, A F) that end nearest to them, at `best_cost` (B,)."""

    dynamics: LinearDynamics
    objective: Objective
    context: Tensor
    goal: Tensor
    best_actions: Tensor
    best_cost: Tensor

    def plan(self, planner: Planner, start: WarmStart | None = None, seeds: Sequence[int] | None = None) -> Plan:
        """Problem b draws from seed b unless told otherwise."""
        seeds = range(len(self.context)) if seeds is None else seeds
        return planner.plan(self.dynamics, self.objective, self.context, self.goal, start, generators(seeds))

    def cost(self, actions: Tensor) -> Tensor:
        """(N,) of plans (N, H, A F) of the first problem, kept out of the record."""
        unwatched = LinearDynamics(self.dynamics.A, self.dynamics.B)
        return self.objective(unwatched.rollout(self.context[:1], actions), self.goal[:1])

    def alone(self, index: int) -> LinearProblem:
        """One of the problems, with a record of its own."""
        rows = slice(index, index + 1)
        return replace(
            self,
            dynamics=LinearDynamics(self.dynamics.A, self.dynamics.B),
            context=self.context[rows],
            goal=self.goal[rows],
            best_actions=self.best_actions[rows],
            best_cost=self.best_cost[rows],
        )


def linear_problem(seed: int = 0, horizon: int = 3, action_dim: int = 1, problems: int = 1) -> LinearProblem:
    """Eight states and fewer actions: the least-squares plan is unique."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    A, B = 0.9 * basis, torch.randn(8, action_dim, generator=generator)
    start, goal = torch.randn(problems, 2, 8, generator=generator).unbind(dim=1)
    power = [torch.linalg.matrix_power(A, k) for k in range(horizon + 1)]
    reach = torch.cat([power[horizon - 1 - t] @ B for t in range(horizon)], dim=1)
    missing = (goal - start @ power[horizon].T).T
    best = torch.linalg.lstsq(reach, missing).solution
    return LinearProblem(
        LinearDynamics(A, B),
        LatentObjective(ObjectiveConfig()),
        start[:, None, None],
        goal[:, None, None],
        best.T.unflatten(1, (horizon, action_dim)),
        (reach @ best - missing).square().mean(dim=0),
    )


@dataclass
class Integrator:
    """s' = s + a in every patch: latents (N, H, P, A F). Encoding is the caller's business, so it fails here."""

    action_dim: int
    asked: list[Tensor] = field(default_factory=list)

    def encode(self, obs: Observation) -> Tensor:
        raise AssertionError("a planner encoded an observation")

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.asked.append(actions.detach().clone())
        return latent[:, -1:] + actions.cumsum(dim=1)[:, :, None]


@dataclass
class Pointer(Integrator):
    """s_t = s_0 + a_t: each action alone decides one frame.

    With `frames: all` the cost is a separable quadratic: the best plan is goal - s_0 at every step, and its clamp within bounds.
    """

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.asked.append(actions.detach().clone())
        return latent[:, -1:] + actions[:, :, None]
