"""Problems in company, the oracle, limits on the way to the world, goals far from the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import SIZE, trained, wall_dataset
from wm.build import build_world, load
from wm.build_planning import planning_evaluation
from wm.config.limits import DeltaLimitConfig, VelocityLimitConfig
from wm.config.plan import CemConfig, GradientConfig, ObjectiveConfig, PlanConfig
from wm.config.worlds import WallWorldConfig
from wm.evaluation.outcomes import PlanOutcome, planning_metrics, roughness
from wm.evaluation.planning import goal_warnings, recorded_outcome
from wm.evaluation.problems import dataset_problems
from wm.loaded import LoadedModel
from wm.types import Problem

PLANNER = CemConfig(horizon=2, num_samples=8, num_elites=2, num_iterations=2)


def worlds(count: int = 1) -> list[Any]:
    return [build_world(WallWorldConfig(frame_size=SIZE, layout="random")) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(trained("align").folder.path)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    dataset = wall_dataset()
    return dataset_problems(
        worlds()[0], dataset.sources, dataset.held_out_episodes(), count=4, goal_horizon=2, frameskip=5, seed=0
    )


def judge(model: LoadedModel, of: list[Any], **values: Any) -> Any:
    plan = PlanConfig(**{"planner": PLANNER, "max_iterations": 2, **values})
    return planning_evaluation(plan, model, of)


def actions(outcome: PlanOutcome) -> np.ndarray:
    return np.array(outcome.actions)


def test_a_problem_in_company_is_solved_as_it_is_alone(model: LoadedModel, problems: list[Problem]) -> None:
    """Its own noise, its own world; only the last digits know of the batch."""
    alone = [judge(model, worlds()).solve(problem) for problem in problems]
    together = judge(model, worlds(4)).solve_together(problems)
    for one, other in zip(alone, together, strict=True):
        assert (one.problem, one.success_by_iteration) == (other.problem, other.success_by_iteration)
        np.testing.assert_allclose(actions(one), actions(other), atol=1e-4)
        np.testing.assert_allclose(one.latent_distance, other.latent_distance, rtol=1e-3)
    again = judge(model, worlds(4)).solve_together(problems)
    assert [actions(one).tolist() for one in together] == [actions(one).tolist() for one in again]


def test_a_world_that_breaks_fails_its_own_problem_alone(model: LoadedModel, problems: list[Problem]) -> None:
    expected = judge(model, worlds(2)).solve_together(problems[:2])
    broken = worlds(2)

    def breaks(action: np.ndarray) -> np.ndarray:
        raise ValueError("the world broke")

    broken[0].step = breaks
    failed, solved = judge(model, broken).solve_together(problems[:2])
    assert failed.failure == "ValueError: the world broke"
    np.testing.assert_allclose(actions(solved), actions(expected[1]), atol=1e-4)
    unplaced = replace(problems[0], layout={"wall_x": 1000.0, "door_y": 30.0})
    failed, solved = judge(model, worlds(2)).solve_together([unplaced, problems[1]])
    assert "wall_x" in str(failed.failure)
    np.testing.assert_allclose(actions(solved), actions(expected[1]), atol=1e-4)


def test_a_model_that_breaks_on_one_problem_fails_it_alone(model: LoadedModel, problems: list[Problem]) -> None:
    """NaN from the model, whenever that goal is among those compared."""
    evaluation = judge(model, worlds(2))
    bad = model.dynamics.encode(model.observe(problems[0].frame_g, problems[0].proprio_g))
    objective = evaluation.mpc.objective

    def breaks(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        is_bad = (goal - bad).flatten(1).abs().amax(dim=1) < 1e-6
        return torch.where(is_bad, torch.nan, objective(latents, goal))

    evaluation.mpc.objective = breaks
    failed, solved = evaluation.solve_together(problems[:2])
    assert "NaN for every candidate" in str(failed.failure)
    assert solved.failure is None


def test_more_problems_than_worlds_is_a_mistake(model: LoadedModel, problems: list[Problem]) -> None:
    with pytest.raises(ValueError, match="4 problems together need as many worlds, got 2"):
        judge(model, worlds(2)).solve_together(problems)


def test_the_reference_s_stop_ends_a_problem_that_is_solved(model: LoadedModel, problems: list[Problem]) -> None:
    happy = worlds(2)
    happy[0].success = lambda state, goal: True
    stopped, goes_on = judge(model, happy, legacy_success_stop=True, max_iterations=3).solve_together(problems[:2])
    assert stopped.success_by_iteration == [True]
    assert len(stopped.actions) == 10
    assert len(goes_on.success_by_iteration) == 3
    happy = worlds()
    happy[0].success = lambda state, goal: True
    assert len(judge(model, happy, max_iterations=3).solve(problems[0]).success_by_iteration) == 3


def test_the_oracle_solves_what_was_recorded(problems: list[Problem]) -> None:
    for problem in problems:
        outcome = recorded_outcome(worlds()[0], problem)
        assert outcome.success
        assert outcome.state_distance < 1e-9
    assert "no actions are recorded" in str(
        recorded_outcome(worlds()[0], replace(problems[0], gt_actions=None)).failure
    )


def test_every_action_passes_the_limits_and_each_change_is_counted(model: LoadedModel, problems: list[Problem]) -> None:
    limits = {"slow": VelocityLimitConfig(max_norm=0.5), "smooth": DeltaLimitConfig(max_change=0.1)}
    free = judge(model, worlds()).solve(problems[0])
    held = judge(model, worlds(), limits=limits).solve(problems[0])
    assert np.linalg.norm(actions(free), axis=1).max() > 0.5
    assert np.linalg.norm(actions(held), axis=1).max() <= 0.5 + 1e-9
    assert np.abs(np.diff(actions(held), axis=0)).max() <= 0.1 + 1e-9
    assert free.clamped == {}
    assert held.clamped["slow"] > 0
    assert held.clamped["smooth"] > 0
    assert held.roughness < free.roughness
    metrics = planning_metrics([held], 2)
    assert metrics["plan/clamped_slow_gh2"] == held.clamped["slow"] / len(held.actions)


def test_roughness_by_hand() -> None:
    assert roughness(np.array([[0.0], [1.0], [2.0]])) == 0
    assert roughness(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])) == 2.0  # (-2)^2 and 0, averaged
    assert np.isnan(roughness(np.zeros((2, 1))))
    assert roughness(np.random.default_rng(0).normal(size=(20000, 1))) == pytest.approx(6, rel=0.05)


def test_a_goal_beyond_three_deviations_is_named(model: LoadedModel, problems: list[Problem]) -> None:
    statistics = model.statistics.proprio
    assert statistics is not None
    away = statistics.mean + np.array([3.5, -2.5]) * statistics.std
    (warning,) = goal_warnings(model, replace(problems[0], proprio_g=away))
    assert (
        warning
        == f"the goal's proprio '{model.statistics.proprio_names[0]}' lies 3.5 standard deviations from the training data"
    )
    assert goal_warnings(model, problems[0]) == []
    assert judge(model, worlds()).solve(replace(problems[0], proprio_g=away)).warnings == [warning]


@pytest.mark.parametrize("space", ["full", "aligned", "projected"])
def test_every_space_is_planned_in(model: LoadedModel, problems: list[Problem], space: str) -> None:
    outcome = judge(model, worlds(), objective=ObjectiveConfig(space=space)).solve(problems[0])
    assert outcome.failure is None
    assert all(np.isfinite(outcome.cost))


def test_the_gradient_planner_may_start_from_the_action_that_does_nothing(
    model: LoadedModel, problems: list[Problem]
) -> None:
    planner = GradientConfig(horizon=2, num_iterations=1, lr=1e-9, action_noise=0.0, start="zero")
    outcome = judge(model, worlds(), planner=planner, max_iterations=1).solve(problems[0])
    np.testing.assert_allclose(outcome.actions, 0, atol=1e-6)
