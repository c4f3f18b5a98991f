"""Planning in simulation: the world keeps score, the planner never sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.contracts import Objective, Planner, World
from wm.loaded import LoadedModel
from wm.planning.mpc import Mpc
from wm.types import Observation, Problem


@dataclass(frozen=True)
class PlanOutcome:
    """What came of one problem.

    Args:
        success: the goal was met at the end of some executed plan (the reference's sticky rule).
        final_success: it was met at the very end.
        success_by_iteration: whether it had been met by the end of each MPC iteration.
        state_distance, initial_distance: in the world's units.
        cost: final cost of each plan; cost_trace: per MPC iteration, cost per planner iteration.
        states: (T, S) every env step; actions: (T - 1, A) raw.
        failure: why the problem could not be completed, or None.
    """

    problem: str
    success: bool
    final_success: bool
    success_by_iteration: list[bool]
    state_distance: float
    initial_distance: float
    plan_s: list[float]
    cost: list[float]
    cost_trace: list[list[float]]
    states: list[list[float]]
    actions: list[list[float]]
    failure: str | None = None

    @staticmethod
    def failed(problem: Problem, reason: str) -> PlanOutcome:
        """A problem that counts as not solved, with its reason."""
        return PlanOutcome(problem.id, False, False, [], float("nan"), float("nan"), [], [], [], [], [], reason)


class PlanningEvaluation:
    """Solves problems with one model and one planner in one world.

    Args:
        seed: with each problem's id it seeds that problem's noise, so that outcomes do not depend on order or sharding.
        frameskip: env steps of a model step.
    """

    def __init__(
        self,
        world: World,
        model: LoadedModel,
        planner: Planner,
        objective: Objective,
        *,
        execute_steps: int | None,
        max_iterations: int,
        seed: int,
    ) -> None:
        self.world = world
        self.model = model
        self.mpc = Mpc(planner, model.dynamics, objective, execute_steps, max_iterations)
        self.seed = seed

    def solve(self, problem: Problem) -> PlanOutcome:
        """Plan and act. A world or a model that breaks fails this problem, with the reason, and no other."""
        try:
            return self._solve(problem)
        except (ValueError, UserError, FloatingPointError) as error:
            return PlanOutcome.failed(problem, f"{type(error).__name__}: {error}")

    def _solve(self, problem: Problem) -> PlanOutcome:
        world = self.world
        world.set_layout(problem.layout)
        world.reset_to(problem.state_0)
        states, actions = [world.state.copy()], []

        def execute(plan: Tensor) -> Observation:
            for action in self.model.env_actions(plan):
                states.append(np.array(world.step(action), dtype=np.float64))
                actions.append(action)
            return self.model.observe(world.render(), world.proprio)

        goal = self.model.dynamics.encode(self.model.observe(problem.frame_g, problem.proprio_g))
        start = self.model.observe(problem.frame_0, problem.proprio_0)
        met: list[bool] = []
        plan_s: list[float] = []
        plans = []
        for iteration in self.mpc.iterations(start, goal, self._generator(problem), execute):
            met.append(bool(world.success(states[-1], problem.state_g)))
            plan_s.append(iteration.plan_s)
            plans.append(iteration.plan)
        return PlanOutcome(
            problem=problem.id,
            success=any(met),
            final_success=met[-1],
            success_by_iteration=[any(met[: i + 1]) for i in range(len(met))],
            state_distance=float(world.distance(states[-1], problem.state_g)),
            initial_distance=float(world.distance(states[0], problem.state_g)),
            plan_s=plan_s,
            cost=[float(plan.cost) for plan in plans],
            cost_trace=[list(plan.trace.get("best_cost", [])) for plan in plans],
            states=np.stack(states).tolist(),
            actions=np.stack(actions).tolist(),
        )

    def _generator(self, problem: Problem) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{problem.id}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def planning_metrics(outcomes: Sequence[PlanOutcome], goal_horizon: int) -> dict[str, float]:
    """`plan/..._gh{h}`: success (sticky and final), by MPC iteration, state distance, seconds a plan."""
    suffix = f"gh{goal_horizon}"
    metrics = {
        f"plan/success_rate_{suffix}": float(np.mean([o.success for o in outcomes])),
        f"plan/final_success_rate_{suffix}": float(np.mean([o.final_success for o in outcomes])),
        f"plan/failed_problems_{suffix}": float(sum(o.failure is not None for o in outcomes)),
    }
    done = [o for o in outcomes if o.failure is None]
    if done:
        metrics[f"plan/state_distance_{suffix}"] = float(np.mean([o.state_distance for o in done]))
        metrics[f"plan/initial_distance_{suffix}"] = float(np.mean([o.initial_distance for o in done]))
        metrics[f"plan/plan_s_{suffix}"] = float(np.mean([s for o in done for s in o.plan_s]))
        for number in range(max(len(o.success_by_iteration) for o in done)):
            reached = [o.success_by_iteration[min(number, len(o.success_by_iteration) - 1)] for o in done]
            metrics[f"plan/success_rate_{suffix}_mpc{number + 1}"] = float(np.sum(reached) / len(outcomes))
    return metrics


def outcome_frames(world: World, problem: Problem, states: Any) -> np.ndarray:
    """uint8 (T, H, W, 3) of a solved problem, rendered again from its states."""
    world.set_layout(problem.layout)
    frames = []
    for state in np.asarray(states):
        world.reset_to(state)
        frames.append(world.render())
    return np.stack(frames)
