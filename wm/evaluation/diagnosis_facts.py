"""What one problem says about the model and the objective apart from any search: errors, costs and their order.

Shape legend: T env steps, H model steps, K random plans, P patch tokens, C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.contracts import Dynamics, Objective, Planner, World
from wm.evaluation.planning import problem_noise
from wm.evaluation.simulator import encode_all, look_at, roll_out
from wm.loaded import LoadedModel
from wm.planning.bounds import ActionBounds
from wm.planning.candidates import candidate_costs, plan_cost
from wm.planning.mpc import Mpc
from wm.planning.sampling import sample
from wm.types import Observation, Problem


@dataclass(frozen=True)
class Trajectory:
    """True frames of a way through the world, one an env step, (T + 1,) each.

    Args:
        cost: the objective of the frame's latent against the goal's.
        distance: the world's, of the state to the goal's.
        met: whether the state counts as the goal.
    """

    cost: list[float]
    distance: list[float]
    met: list[bool]


@dataclass(frozen=True)
class ProblemFacts:
    """One problem. What needs recorded actions is empty or None where there are none.

    Args:
        ways: "oracle" and "random": the recorded actions, and one random plan as long.
        model_error: mean squared error of the rollout under the recorded actions, visual channels, after each model step (H,).
        copy_error: the same of the start's latent.
        oracle_imagined, oracle_true: cost of the recorded actions by the model's rollout and by the true frames.
        imagined, true, distance: of random plans that long: cost by the model, cost by true frames, distance of the last state (K,).
        dreamt: cost of the imagined latent after each plan, where model and world are one, for each MPC iteration.
    """

    problem: str
    ways: dict[str, Trajectory]
    model_error: list[float]
    copy_error: list[float]
    oracle_imagined: float | None
    oracle_true: float | None
    imagined: list[float]
    true: list[float]
    distance: list[float]
    dreamt: list[float] = field(default_factory=list[float])

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite cost is null."""
        return _plain(dataclasses.asdict(self))

    @staticmethod
    def from_json(saved: dict[str, Any]) -> ProblemFacts:
        """The inverse of `to_json`."""
        costs = {key: _costs(saved[key]) for key in ("model_error", "imagined", "true", "dreamt")}
        ways = {name: Trajectory(**{**way, "cost": _costs(way["cost"])}) for name, way in saved["ways"].items()}
        return ProblemFacts(**{**saved, **costs, "ways": ways})


class FactFinder:
    """Asks one model and one world about problems.

    Args:
        visual: the part of content whose error is measured, as `WorldModel.visual`.
        last_only: the objective reads no frame but the last.
        planner, execute_steps, max_iterations, seed: as evaluated, for `dreamt`.
        bounds: of random plans, or None.
        num_candidates: K.
    """

    def __init__(
        self,
        model: LoadedModel,
        world: World,
        planner: Planner,
        objective: Objective,
        *,
        visual: Callable[[Tensor], Tensor],
        bounds: ActionBounds | None,
        execute_steps: int | None,
        max_iterations: int,
        num_candidates: int,
        seed: int,
        last_only: bool,
        chunk_size: int | None = None,
    ) -> None:
        self.model, self.world, self.planner, self.objective = model, world, planner, objective
        self.visual, self.bounds, self.chunk_size = visual, bounds, chunk_size
        self.execute_steps, self.max_iterations = execute_steps, max_iterations
        self.num_candidates, self.seed, self.last_only = num_candidates, seed, last_only

    @torch.no_grad()
    def find(self, problem: Problem) -> ProblemFacts:
        """Everything about one problem. Raises ValueError where its world refuses it."""
        model, dynamics = self.model, self.model.dynamics
        goal = dynamics.encode(model.observe(problem.frame_g, problem.proprio_g))
        self._begin(problem)
        steps = self.planner.horizon
        recorded: Tensor | None = None
        if problem.gt_actions is not None:
            recorded = model.model_actions(problem.gt_actions)
            steps = len(recorded)
        plans = self._random_plans(problem, steps)
        ways: dict[str, Trajectory] = {}
        error: list[float] = []
        copied: list[float] = []
        imagined = true = None
        start = dynamics.encode(model.observe(problem.frame_0, problem.proprio_0))
        if recorded is not None and problem.gt_actions is not None:
            ways["oracle"], latents = self._walk(problem, problem.gt_actions, goal)
            true_steps = latents[:: model.frameskip].transpose(0, 1)  # (1, H + 1, P, C)
            seen = self.visual(true_steps)[0]
            rolled = self.visual(dynamics.rollout(start, recorded[None].to(start.device)))[0]
            error, copied = _errors(rolled, seen[1:]), _errors(seen[:1].expand_as(seen[1:]), seen[1:])
            imagined = float(plan_cost(dynamics, self.objective, start, goal, recorded[None].to(start.device)))
            true = float(self.objective(true_steps[:, 1:], goal))
        ways["random"], _ = self._walk(problem, model.env_actions(plans[0]), goal)
        self._begin(problem)
        ends = self._ends(problem, plans, goal)
        kept = [number for number, end in enumerate(ends) if end is not None]
        dreamed = candidate_costs(dynamics, self.objective, start, goal, plans[None].to(start.device), self.chunk_size)
        return ProblemFacts(
            problem=problem.id,
            ways=ways,
            model_error=error,
            copy_error=copied,
            oracle_imagined=imagined,
            oracle_true=true,
            imagined=[float(dreamed[0, number]) for number in kept],
            true=[end[0] for end in ends if end is not None],
            distance=[end[1] for end in ends if end is not None],
            dreamt=imagined_costs(
                self.planner,
                dynamics,
                self.objective,
                start,
                goal,
                execute_steps=self.execute_steps,
                max_iterations=self.max_iterations,
                generator=problem_noise(self.seed, problem),
            ),
        )

    def _begin(self, problem: Problem) -> None:
        self.world.set_layout(problem.layout)
        self.world.reset_to(problem.state_0)

    def _random_plans(self, problem: Problem, steps: int) -> Tensor:
        """(K, steps, A F) of N(0, 1) within bounds, as random actions are drawn."""
        shape = (1, self.num_candidates, steps, self.model.model.action_dim)
        # Numbers of their own: the planner's of the same problem begin elsewhere.
        noise = torch.randn(shape, generator=problem_noise(self.seed + 1, problem))
        mean = torch.zeros(1, steps, shape[-1])
        return sample(mean, torch.ones_like(mean), noise, self.bounds)[0]

    def _walk(self, problem: Problem, actions: np.ndarray, goal: Tensor) -> tuple[Trajectory, Tensor]:
        """A way of raw env actions (T, A), and the latents of its frames (T + 1, 1, P, C)."""
        self._begin(problem)
        seen, states = [look_at(self.world, self.model)], [self.world.state.copy()]
        for action in actions:
            states.append(np.array(self.world.step(action), np.float64))
            seen.append(look_at(self.world, self.model))
        latents = encode_all(self.model, seen)
        return Trajectory(
            cost=self.objective(latents, goal).float().tolist(),
            distance=[float(self.world.distance(state, problem.state_g)) for state in states],
            met=[bool(self.world.success(state, problem.state_g)) for state in states],
        ), latents

    def _ends(self, problem: Problem, plans: Tensor, goal: Tensor) -> list[tuple[float, float] | None]:
        """(cost, distance) where each plan truly ends; None for one that breaks the world."""

        def look() -> tuple[Observation, float]:
            return look_at(self.world, self.model), float(self.world.distance(self.world.state, problem.state_g))

        rolled = roll_out(self.world, self.model, plans, look, last_only=self.last_only)
        found: list[tuple[float, float] | None] = []
        for each in rolled:
            if each is None:
                found.append(None)
                continue
            latents = encode_all(self.model, [seen for seen, _ in each]).transpose(0, 1)  # (1, H or 1, P, C)
            found.append((float(self.objective(latents, goal)), each[-1][1]))
        return found


class _Carried:
    """`Dynamics` in which what was imagined last is what is seen next: model and world are one."""

    def __init__(self, dynamics: Dynamics, content: Tensor) -> None:
        self.dynamics, self.content, self.action_dim = dynamics, content, dynamics.action_dim

    def encode(self, obs: Observation) -> Tensor:
        return self.content

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        return self.dynamics.rollout(latent, actions)


def imagined_costs(
    planner: Planner,
    dynamics: Dynamics,
    objective: Objective,
    start: Tensor,
    goal: Tensor,
    *,
    execute_steps: int | None,
    max_iterations: int,
    generator: torch.Generator,
) -> list[float]:
    """Plan in the model and execute in the model: the cost of the imagined latent after each executed plan.

    Args:
        start, goal: content (1, 1, P, C).
    """
    carried = _Carried(dynamics, start)
    unseen = Observation(torch.empty(0))

    def execute(plans: Tensor) -> Observation:
        with torch.no_grad():
            carried.content = dynamics.rollout(carried.content, plans.detach())[:, -1:]
        return unseen

    mpc = Mpc(planner, carried, objective, execute_steps, max_iterations)
    return [float(objective(carried.content, goal)) for _ in mpc.iterations(unseen, goal, [generator], execute)]


def _errors(predicted: Tensor, truth: Tensor) -> list[float]:
    """Mean squared error of each frame, (H,)."""
    return (predicted - truth).float().square().flatten(1).mean(dim=1).tolist()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _costs(saved: list[float | None]) -> list[float]:
    return [float("inf") if value is None else value for value in saved]
