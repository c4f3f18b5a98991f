"""Model-predictive control: plan, execute the first steps, look again, replan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wm.contracts import Dynamics, Objective, Planner
from wm.types import Observation, Plan, WarmStart

Execute = Callable[[Tensor], Observation]
"""Carries out normalised actions (B, k, A F) in the worlds and returns what is then seen, (B, T, ...): never success."""


@dataclass(frozen=True)
class MpcIteration:
    """One round of planning and execution, of B problems.

    Args:
        plan: the whole plans.
        executed: their first k actions (B, k, A F), those carried out.
        plan_s: seconds the planner took for all B, without encoding and execution.
    """

    plan: Plan
    executed: Tensor
    plan_s: float


@dataclass(frozen=True)
class MpcResult:
    """Every round, in order."""

    iterations: list[MpcIteration]

    @property
    def actions(self) -> Tensor:
        """All executed actions (B, sum of k, A F)."""
        return torch.cat([iteration.executed for iteration in self.iterations], dim=1)


class Mpc:
    """Plans, executes and replans a fixed number of times. It never learns whether the goal was reached.

    What is left of a plan warm-starts the next one (the shifted mean); a plan executed whole leaves nothing.

    Args:
        execute_steps: model steps executed of each plan; None: the planner's whole horizon.
        max_iterations: how many times it plans.

    Raises:
        ValueError: `execute_steps` is not in 1..planner.horizon, or `max_iterations` is below 1.

    Source: DINO-WM (arXiv 2411.04983; planning/mpc.py of its repository). Difference: the reference asks the simulator
    for success after each round and stops on it; here whoever consumes `iterations` may stop, the planner cannot know.
    """

    def __init__(
        self,
        planner: Planner,
        dynamics: Dynamics,
        objective: Objective,
        execute_steps: int | None = None,
        max_iterations: int = 10,
    ) -> None:
        self.planner = planner
        self.dynamics = dynamics
        self.objective = objective
        self.execute_steps = planner.horizon if execute_steps is None else execute_steps
        self.max_iterations = max_iterations
        if not 1 <= self.execute_steps <= planner.horizon:
            raise ValueError(f"execute_steps must be in 1..{planner.horizon} (the horizon), got {execute_steps}")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")

    def iterations(
        self, observation: Observation, goal: Tensor, generators: Sequence[torch.Generator], execute: Execute
    ) -> Iterator[MpcIteration]:
        """Yield after each execution; nothing more is planned or executed once the consumer stops.

        Args:
            observation: what is seen at the start, (B, T, ...).
            goal: latent (B, 1, ...).
            generators: one a problem, its only source of randomness, used on from round to round.
            execute: steps the worlds.
        """
        start: WarmStart | None = None
        for _ in range(self.max_iterations):
            with torch.no_grad():
                context = self.dynamics.encode(observation)
            began_s = time.perf_counter()
            plan = self.planner.plan(self.dynamics, self.objective, context, goal, start, generators)
            plan_s = time.perf_counter() - began_s
            executed = plan.actions[:, : self.execute_steps]
            observation = execute(executed)
            start = WarmStart.after(plan, self.execute_steps)
            yield MpcIteration(plan, executed, plan_s)

    def run(
        self, observation: Observation, goal: Tensor, generators: Sequence[torch.Generator], execute: Execute
    ) -> MpcResult:
        """All `max_iterations` rounds; the arguments are those of `iterations`."""
        return MpcResult(list(self.iterations(observation, goal, generators, execute)))
