"""Planning in simulation: the world keeps score, the planner never sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.contracts import Dynamics, Objective, Planner, World
from wm.evaluation.outcomes import PlanOutcome, roughness
from wm.loaded import LoadedModel
from wm.planning.limits import ActionLimits
from wm.planning.mpc import Mpc, MpcIteration
from wm.types import Observation, Problem

GOAL_SIGMA = 3.0  # beyond so many standard deviations of the training data, a goal is named
FAULTS = (ValueError, UserError, FloatingPointError)  # of worlds and models; all else is a mistake in the code


class PlanningEvaluation:
    """Solves problems with one model and one planner.

    Args:
        worlds: as many as problems are to be solved together.
        seed: with each problem's id it seeds that problem's noise, so that outcomes do not depend on order or sharding.
        limits: makes what raw actions pass through, once a problem.
        legacy_success_stop: a problem whose goal is met ends there. The planner still hears nothing of it.
        dynamics: what the planner searches in and what is encoded with; None: the model's own.
    """

    def __init__(
        self,
        worlds: Sequence[World],
        model: LoadedModel,
        planner: Planner,
        objective: Objective,
        *,
        execute_steps: int | None,
        max_iterations: int,
        seed: int,
        limits: Callable[[], ActionLimits] = lambda: ActionLimits({}),
        legacy_success_stop: bool = False,
        dynamics: Dynamics | None = None,
    ) -> None:
        self.worlds = worlds
        self.model = model
        self.objective = objective
        self.dynamics = model.dynamics if dynamics is None else dynamics
        self.mpc = Mpc(planner, self.dynamics, objective, execute_steps, max_iterations)
        self.seed = seed
        self.limits = limits
        self.legacy_success_stop = legacy_success_stop

    def solve(self, problem: Problem) -> PlanOutcome:
        """Plan and act. A world or a model that breaks fails the problem, with the reason."""
        return self.solve_together([problem])[0]

    def solve_together(self, problems: Sequence[Problem]) -> list[PlanOutcome]:
        """Plan for several problems in one batch, at most as many as there are worlds.

        A world that breaks fails its own problem. Where the model breaks, each problem is tried again alone, and fails alone.
        """
        if len(problems) > len(self.worlds):
            raise ValueError(f"{len(problems)} problems together need as many worlds, got {len(self.worlds)}")
        episodes = [
            _Episode(world, problem, self.model, self.limits())
            for world, problem in zip(self.worlds, problems, strict=False)
        ]
        running = [episode for episode in episodes if episode.failure is None]
        try:
            if running:
                self._run(running)
        except FAULTS as error:
            if len(problems) > 1:
                return [self.solve(problem) for problem in problems]
            return [PlanOutcome.failed(problems[0], _reason(error))]
        return [episode.outcome() for episode in episodes]

    def _run(self, episodes: Sequence[_Episode]) -> None:
        dynamics = self.dynamics
        goal = dynamics.encode(joined([episode.goal for episode in episodes]))

        def execute(plans: Tensor) -> Observation:
            for episode, plan in zip(episodes, plans, strict=True):
                episode.act(plan)
            return joined([episode.seen for episode in episodes])

        start = joined([episode.seen for episode in episodes])
        generators = [problem_noise(self.seed, episode.problem) for episode in episodes]
        for iteration in self.mpc.iterations(start, goal, generators, execute):
            for row, episode in enumerate(episodes):
                episode.record(iteration, row, len(episodes), stop=self.legacy_success_stop)
            if all(episode.is_over for episode in episodes):
                break
        final = dynamics.encode(joined([episode.seen for episode in episodes]))
        for episode, distance in zip(episodes, self.objective(final, goal).tolist(), strict=True):
            episode.latent_distance = distance


class _Episode:
    """One problem in its world, from the reset to the score."""

    def __init__(self, world: World, problem: Problem, model: LoadedModel, limits: ActionLimits) -> None:
        self.problem = problem
        self.failure: str | None = None
        self.is_over = False
        self.latent_distance = float("nan")
        self.goal = model.observe(problem.frame_g, problem.proprio_g)
        self.seen = model.observe(problem.frame_0, problem.proprio_0)
        self._world, self._model, self._limits = world, model, limits
        self._states: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []
        self._met: list[bool] = []
        self._iterations: list[tuple[MpcIteration, int, int]] = []
        try:
            world.set_layout(problem.layout)
            world.reset_to(problem.state_0)
            self._states.append(world.state.copy())
        except FAULTS as error:
            self._fail(error)

    def act(self, plan: Tensor) -> None:
        """Execute normalised actions (k, A F), each after the limits."""
        if self.is_over:
            return
        try:
            for wanted in self._model.env_actions(plan):
                previous = self._actions[-1] if self._actions else None
                action = self._limits(wanted, previous, self._world.proprio)
                self._states.append(np.array(self._world.step(action), dtype=np.float64))
                self._actions.append(action)
            self.seen = self._model.observe(self._world.render(), self._world.proprio)
        except FAULTS as error:
            self._fail(error)

    def record(self, iteration: MpcIteration, row: int, rows: int, *, stop: bool) -> None:
        """Keep score after an execution.

        Args:
            row, rows: which of how many problems planned together this is.
            stop: end here if the goal is met.
        """
        if self.is_over:
            return
        self._iterations.append((iteration, row, rows))
        try:
            self._met.append(bool(self._world.success(self._states[-1], self.problem.state_g)))
        except FAULTS as error:
            self._fail(error)
        self.is_over = self.is_over or (stop and self._met[-1])

    def outcome(self) -> PlanOutcome:
        """What came of it."""
        if self.failure is not None:
            return PlanOutcome.failed(self.problem, self.failure)
        actions = np.stack(self._actions)
        statistics = self._model.statistics.action
        assert statistics is not None  # there are actions
        traces = [(iteration.plan.trace, row) for iteration, row, _ in self._iterations]
        return PlanOutcome(
            problem=self.problem.id,
            success=any(self._met),
            final_success=self._met[-1],
            success_by_iteration=[any(self._met[: i + 1]) for i in range(len(self._met))],
            state_distance=self._distance(-1),
            initial_distance=self._distance(0),
            plan_s=[iteration.plan_s / rows for iteration, _, rows in self._iterations],
            cost=[float(iteration.plan.cost[row]) for iteration, row, _ in self._iterations],
            cost_trace=[
                trace["best_cost" if "best_cost" in trace else "cost"][row].tolist() if trace else []
                for trace, row in traces
            ],
            states=np.stack(self._states).tolist(),
            actions=actions.tolist(),
            latent_distance=self.latent_distance,
            plans=[
                self._model.env_actions(iteration.plan.actions[row]).tolist() for iteration, row, _ in self._iterations
            ],
            clamped=dict(self._limits.clamped),
            roughness=roughness(statistics.normalize(actions)),
            warnings=goal_warnings(self._model, self.problem),
        )

    def _distance(self, step: int) -> float:
        return float(self._world.distance(self._states[step], self.problem.state_g))

    def _fail(self, error: Exception) -> None:
        self.failure, self.is_over = _reason(error), True


def problem_noise(seed: int, problem: Problem) -> torch.Generator:
    """A problem's own randomness, the same in any company and any order."""
    digest = hashlib.sha256(f"{seed}/{problem.id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def goal_warnings(model: LoadedModel, problem: Problem) -> list[str]:
    """Entries of the goal's proprio far outside the training data: there the model plans with confidence, and wrongly."""
    statistics, proprio = model.statistics.proprio, problem.proprio_g
    if statistics is None or proprio is None or not model.sees_proprio:
        return []
    away = statistics.normalize(np.asarray(proprio, np.float64))
    return [
        f"the goal's proprio '{name}' lies {abs(value):.1f} standard deviations from the training data"
        for name, value in zip(model.statistics.proprio_names, away, strict=True)
        if abs(value) > GOAL_SIGMA
    ]


def recorded_outcome(world: World, problem: Problem) -> PlanOutcome:
    """The oracle: the actions that the goal was recorded with, in the world; no model is asked."""
    if problem.gt_actions is None:
        return PlanOutcome.failed(
            problem, "no actions are recorded for this problem: the oracle needs plan.problems=dataset"
        )
    try:
        world.set_layout(problem.layout)
        world.reset_to(problem.state_0)
        states = [world.state.copy()]
        states += [np.array(world.step(action), dtype=np.float64) for action in problem.gt_actions]
    except FAULTS as error:
        return PlanOutcome.failed(problem, _reason(error))
    met = bool(world.success(states[-1], problem.state_g))
    return PlanOutcome(
        problem=problem.id,
        success=met,
        final_success=met,
        success_by_iteration=[met],
        state_distance=float(world.distance(states[-1], problem.state_g)),
        initial_distance=float(world.distance(states[0], problem.state_g)),
        plan_s=[],
        cost=[],
        cost_trace=[],
        states=np.stack(states).tolist(),
        actions=problem.gt_actions.tolist(),
    )


def joined(observations: Sequence[Observation]) -> Observation:
    """Single observations (1, 1, ...) as one of B rows; either all have proprio or none has."""
    proprio = [each.proprio for each in observations if each.proprio is not None]
    return Observation(torch.cat([each.visual for each in observations]), torch.cat(proprio) if proprio else None)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
