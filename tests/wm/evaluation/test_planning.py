"""The world keeps score: each problem alone, the planner blind to success, metrics by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import SIZE, trained, wall_dataset
from wm.build import build_world, load
from wm.build_planning import build_objective, build_planner
from wm.config.errors import UserError
from wm.config.plan import CemConfig
from wm.config.worlds import WallWorldConfig
from wm.contracts import World
from wm.evaluation.outcomes import PlanOutcome, outcome_frames, planning_metrics
from wm.evaluation.planning import PlanningEvaluation
from wm.evaluation.problems import dataset_problems
from wm.loaded import LoadedModel
from wm.types import Plan, Problem


def wall() -> Any:
    return build_world(WallWorldConfig(frame_size=SIZE, layout="random"))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(trained("align").folder.path)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    dataset = wall_dataset()
    return dataset_problems(
        wall(), dataset.sources, dataset.held_out_episodes(), count=4, goal_horizon=2, frameskip=5, seed=0
    )


class Told:
    """A planner that is told what to do: the recorded actions of a problem, then nothing more."""

    horizon = 2

    def __init__(self, plans: list[Tensor], world: World | None = None) -> None:
        self.plans = list(plans)
        self.planning = False

    def plan(self, dynamics: Any, objective: Any, context: Any, goal: Any, start: Any, generators: Any) -> Plan:
        self.planning = True
        actions = self.plans.pop(0)
        self.planning = False
        return Plan(actions[None], torch.tensor([0.5]), {"best_cost": torch.tensor([[0.7, 0.5]])})


def evaluation(model: LoadedModel, world: Any = None, planner: Any = None, **values: Any) -> PlanningEvaluation:
    config = CemConfig(horizon=2, num_samples=8, num_elites=2, num_iterations=2)
    given = {"execute_steps": None, "max_iterations": 2, "seed": 0, **values}
    return PlanningEvaluation(
        [world or wall()],
        model,
        planner or build_planner(config, model),
        build_objective(model.config.plan.objective, model.model),
        **given,
    )


def result(outcome: PlanOutcome) -> dict[str, Any]:
    """All but the clock."""
    return {key: value for key, value in vars(outcome).items() if key != "plan_s"}


def gt(model: LoadedModel, problem: Problem) -> Tensor:
    assert problem.gt_actions is not None
    return model.model_actions(problem.gt_actions)


def test_outcomes_do_not_depend_on_order(model: LoadedModel, problems: list[Problem]) -> None:
    forward = {p.id: result(evaluation(model).solve(p)) for p in problems}
    one_world = evaluation(model)
    backward = {p.id: result(one_world.solve(p)) for p in reversed(problems)}
    assert forward == backward
    assert forward[problems[0].id] != result(evaluation(model, seed=1).solve(problems[0]))


def test_recorded_actions_solve_the_problem(model: LoadedModel, problems: list[Problem]) -> None:
    for problem in problems:
        outcome = evaluation(model, planner=Told([gt(model, problem)]), max_iterations=1).solve(problem)
        assert outcome.success
        assert outcome.final_success
        assert outcome.success_by_iteration == [True]
        assert outcome.failure is None
        np.testing.assert_allclose(outcome.states[-1], problem.state_g, atol=1e-4)
        np.testing.assert_allclose(outcome.actions, problem.gt_actions, atol=1e-5)
        np.testing.assert_array_equal(outcome.states[0], problem.state_0)
        assert len(outcome.states) == len(outcome.actions) + 1 == 11
        assert outcome.state_distance < 1e-4
        assert outcome.initial_distance == pytest.approx(float(np.linalg.norm(problem.state_0 - problem.state_g)))
        assert outcome.cost == [0.5]
        np.testing.assert_allclose(outcome.cost_trace, [[0.7, 0.5]])
        np.testing.assert_allclose(outcome.plans, [problem.gt_actions], atol=1e-5)
        assert len(outcome.plan_s) == 1


def test_success_is_sticky_and_final_success_is_not(model: LoadedModel, problems: list[Problem]) -> None:
    problem = problems[0]
    assert problem.gt_actions is not None
    there, back = gt(model, problem), model.model_actions(-problem.gt_actions[::-1].copy())
    still = model.model_actions(np.zeros((10, 2)))
    outcome = evaluation(model, planner=Told([there, back]), max_iterations=2).solve(problem)
    assert outcome.success_by_iteration == [True, True]
    assert outcome.success
    assert not outcome.final_success
    late = evaluation(model, planner=Told([still, there]), max_iterations=2).solve(problem)
    assert late.success_by_iteration == [False, True]
    assert late.final_success
    never = evaluation(model, planner=Told([still, still]), max_iterations=2).solve(problem)
    assert (never.success, never.final_success, never.success_by_iteration) == (False, False, [False, False])
    assert never.state_distance == pytest.approx(never.initial_distance)


def test_only_the_first_steps_are_executed(model: LoadedModel, problems: list[Problem]) -> None:
    problem = problems[0]
    plans = [gt(model, problem)] * 3
    outcome = evaluation(model, planner=Told(plans), execute_steps=1, max_iterations=3).solve(problem)
    assert problem.gt_actions is not None
    np.testing.assert_allclose(outcome.actions, np.tile(problem.gt_actions[:5], (3, 1)), atol=1e-5)


@pytest.mark.parametrize("error", [ValueError("the world broke"), FloatingPointError("nan"), UserError("no actions")])
def test_a_world_that_breaks_fails_only_its_problem(
    model: LoadedModel, problems: list[Problem], error: Exception
) -> None:
    expected = [result(evaluation(model).solve(p)) for p in problems]
    world = wall()
    judge = evaluation(model, world)
    step, calls = world.step, []

    def breaks(action: np.ndarray) -> np.ndarray:
        calls.append(action)
        if len(calls) == 3:
            raise error
        return step(action)

    world.step = breaks
    failed = judge.solve(problems[0])
    assert failed.failure == f"{type(error).__name__}: {error}"
    assert not failed.success
    assert math.isnan(failed.state_distance)
    assert [result(judge.solve(p)) for p in problems[1:]] == expected[1:]


def test_an_impossible_layout_or_plan_is_a_failure_with_its_reason(model: LoadedModel, problems: list[Problem]) -> None:
    from dataclasses import replace

    moved = replace(problems[0], layout={"wall_x": 1000.0, "door_y": 30.0})
    assert "wall_x" in str(evaluation(model).solve(moved).failure)
    nan = Told([torch.full((2, 10), float("nan"))])
    assert "action" in str(evaluation(model, planner=nan).solve(problems[0]).failure)


def test_a_mistake_in_the_code_is_not_swallowed(model: LoadedModel, problems: list[Problem]) -> None:
    world = wall()
    world.render = None
    with pytest.raises(TypeError):
        evaluation(model, world).solve(problems[0])


def test_the_planner_never_sees_success(model: LoadedModel, problems: list[Problem]) -> None:
    world = wall()
    success, asked, planning = world.success, [], [False]

    def watched(state: np.ndarray, goal: np.ndarray) -> bool:
        assert not planning[0]
        asked.append(state)
        return success(state, goal)

    config = CemConfig(horizon=2, num_samples=8, num_elites=2, num_iterations=2)
    planner: Any = build_planner(config, model)
    plan = planner.plan

    def marked(*arguments: Any) -> Plan:
        planning[0] = True
        try:
            return plan(*arguments)
        finally:
            planning[0] = False

    world.success, planner.plan = watched, marked
    seen = evaluation(model, world, planner, max_iterations=3).solve(problems[0])
    assert len(asked) == 3  # once for every executed plan
    world.success = lambda state, goal: True
    lied = evaluation(model, world, planner, max_iterations=3).solve(problems[0])
    assert lied.success
    assert (lied.states, lied.cost) == (seen.states, seen.cost)  # success changed nothing that was done


def outcome(met: list[bool], distance: float = 1.0, failure: str | None = None) -> PlanOutcome:
    return PlanOutcome(
        "p", any(met), met[-1], [any(met[: i + 1]) for i in range(len(met))], distance, 10.0, [0.5] * len(met),
        [0.0], [[0.0]], [[0.0]], [[0.0]], failure,
    )  # fmt: skip


def test_metrics_by_hand() -> None:
    problem = Problem("q", {}, *(np.zeros(2),) * 4, goal_horizon=5)
    failed = PlanOutcome.failed(problem, "ValueError: broke")
    outcomes = [outcome([True, False], 1.0), outcome([False, True], 2.0), outcome([False, False], 6.0), failed]
    assert planning_metrics(outcomes, 5) == {
        "plan/success_rate_gh5": 0.5,
        "plan/final_success_rate_gh5": 0.25,
        "plan/failed_problems_gh5": 1.0,
        "plan/state_distance_gh5": 3.0,
        "plan/initial_distance_gh5": 10.0,
        "plan/plan_s_gh5": 0.5,
        "plan/success_rate_gh5_mpc1": 0.25,
        "plan/success_rate_gh5_mpc2": 0.5,
    }
    assert planning_metrics([failed], 3) == {
        "plan/success_rate_gh3": 0.0,
        "plan/final_success_rate_gh3": 0.0,
        "plan/failed_problems_gh3": 1.0,
    }


def test_an_outcome_can_be_looked_at(model: LoadedModel, problems: list[Problem]) -> None:
    problem, world = problems[0], wall()
    solved = evaluation(model, planner=Told([gt(model, problem)]), max_iterations=1).solve(problem)
    frames = outcome_frames(world, problem, solved.states)
    assert frames.shape == (11, SIZE, SIZE, 3)
    np.testing.assert_array_equal(frames[0], problem.frame_0)


def test_every_problem_and_every_seed_has_its_own_noise(model: LoadedModel, problems: list[Problem]) -> None:
    drawn: list[float] = []

    class Draws(Told):
        def plan(self, dynamics: Any, objective: Any, context: Any, goal: Any, start: Any, generators: Any) -> Plan:
            drawn.append(float(torch.rand((), generator=generators[0])))
            return super().plan(dynamics, objective, context, goal, start, generators)

    for seed in (0, 1):
        for problem in problems:
            plans = [gt(model, problem)] * 2
            evaluation(model, planner=Draws(plans), seed=seed).solve(problem)
    assert len(set(drawn)) == len(drawn) == 4 * len(problems)
