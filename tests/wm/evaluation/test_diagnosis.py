"""Where the truth is known the verdict names it: a sound model, and one fault at a time. Losses by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.evaluation.toy_planning import FRAMESKIP, HORIZON, PLAN, WORLD, toy_model, toy_problems
from wm.build_diagnosis import SLOW_ROWS, Diagnostics, shifted_problem
from wm.build_planning import planning_evaluation
from wm.config.diagnosis import DiagnosisConfig
from wm.config.plan import CemConfig, ObjectiveConfig, PlanConfig, RandomConfig
from wm.config.worlds import WallWorldConfig
from wm.envs.linear import LinearWorld
from wm.envs.wall import WallWorld
from wm.evaluation.diagnosis import Row, losses, verdict
from wm.evaluation.diagnosis_facts import ProblemFacts
from wm.evaluation.diagnosis_summary import Diagnosis, diagnosis
from wm.evaluation.planning import recorded_outcome
from wm.evaluation.problems import random_problems
from wm.evaluation.ranking import Agreement
from wm.evaluation.simulator import SimulatedLatents, SimulatedStates, StateCost
from wm.loaded import LoadedModel
from wm.types import Problem

PROBLEMS = toy_problems(8)
SETTINGS = DiagnosisConfig()
TOO_SMALL = CemConfig(horizon=HORIZON, num_samples=2, num_elites=2, num_iterations=1)


def _row(name: str, problems: Sequence[Problem], solve: Callable[[Problem], Any]) -> Row:
    outcomes = [solve(problem) for problem in problems]
    return Row(name, {o.problem: o.success for o in outcomes}, sum(o.failure is not None for o in outcomes))


def diagnosed(
    model: LoadedModel,
    plan: PlanConfig = PLAN,
    settings: DiagnosisConfig = SETTINGS,
    problems: Sequence[Problem] = PROBLEMS,
) -> Diagnosis:
    """As `wm diagnose`, without its cluster and files."""
    world = LinearWorld(WORLD)
    asked = Diagnostics(plan, settings, model, world)
    at_random = plan.model_copy(update={"planner": RandomConfig(horizon=HORIZON)})
    rows = {
        "evaluated": _row("evaluated", problems, planning_evaluation(plan, model, [world]).solve),
        "random": _row("random", problems, planning_evaluation(at_random, model, [world]).solve),
        **{row: _row(row, problems, lambda problem, row=row: asked.solve(row, problem)) for row in SLOW_ROWS},
    }
    if problems[0].gt_actions is not None:
        rows["oracle"] = _row("oracle", problems, lambda problem: recorded_outcome(world, problem))
    return diagnosis(HORIZON, rows, [asked.facts(problem) for problem in problems], {}, "CEM of 64 x 5")


def rates(found: Diagnosis) -> dict[str, float]:
    return {name: row.rate for name, row in found.rows.items()}


@pytest.fixture(scope="module")
def sound() -> Diagnosis:
    return diagnosed(toy_model())


def test_a_sound_model_loses_nothing(sound: Diagnosis) -> None:
    top = {name: rate for name, rate in rates(sound).items() if name != "random"}
    assert top == dict.fromkeys(top, 1.0)
    assert sound.verdict.cause is None
    assert sound.verdict.words == ["Nothing is lost: 100 % of 8 problems are solved."]
    assert max(sound.error_ratio) < 0.01
    assert len(sound.error_ratio) == HORIZON
    assert sound.measures["cheaper_imagined"].value == 0
    assert sound.measures["cheaper_true"].value == 0
    for name in ("order_imagined", "order_true", "order_oracle", "order_random"):
        assert sound.measures[name].value > 0.98
    assert sound.judge is not None
    assert sound.judge.accuracy > 0.95
    # The threshold is a squared distance over two channels: 0.1^2 / 2 of the world's success.
    assert sound.judge.threshold == pytest.approx(0.1**2 / 2, rel=0.5)
    assert sound.agreement == Agreement(both=8, imagined_only=0, real_only=0, neither=0)


def test_wrong_dynamics_are_the_models() -> None:
    found = diagnosed(toy_model(gain=-1.0))
    assert rates(found)["true_latents"] == 1
    assert rates(found)["in_model"] < 0.4
    assert found.verdict.cause == "model"
    assert found.verdict.loss is not None
    assert found.verdict.loss.is_certain
    assert "with the simulator in its place 100 % are solved" in found.verdict.words[0]
    assert found.error_ratio[-1] > 1
    assert found.measures["cheaper_imagined"].value > 0.3
    assert found.measures["cheaper_true"].value == 0  # the objective is sound
    # It believes that it arrives.
    assert found.agreement is not None
    assert found.agreement.imagined_only >= 5


@pytest.mark.parametrize(
    ("visual", "frames"),
    [
        pytest.param(lambda content: torch.zeros_like(content), "last", id="constant"),
        pytest.param(lambda content: torch.sin(60 * content), "last", id="folded"),
        pytest.param(lambda content: torch.zeros_like(content), "all", id="constant, all frames"),
    ],
)
def test_a_useless_objective_is_the_objectives(visual: Any, frames: Any) -> None:
    plan = PLAN.model_copy(update={"objective": ObjectiveConfig(frames=frames)})
    found = diagnosed(toy_model(visual=visual), plan)
    assert rates(found)["true_states"] == 1
    assert found.verdict.cause == "objective"
    assert "both in the simulator" in found.verdict.words[0]
    assert abs(found.measures["order_true"].value) < 0.4


def test_what_a_constant_objective_shows() -> None:
    found = diagnosed(toy_model(visual=lambda content: torch.zeros_like(content)), problems=PROBLEMS[:3])
    assert {name: measure.value for name, measure in found.measures.items()} == {
        "cheaper_imagined": 0.5, "cheaper_true": 0.5,
        "order_imagined": 0, "order_true": 0, "order_oracle": 0, "order_random": 0,
    }  # fmt: skip
    assert found.agreement is None
    assert "50 % of true frames" in found.dropped[0]


def test_a_poor_planner_is_the_planners() -> None:
    found = diagnosed(toy_model(), PLAN.model_copy(update={"planner": TOO_SMALL, "max_iterations": 2}))
    assert rates(found)["in_model"] == 1
    assert found.verdict.cause == "planner"
    assert "in place of plan.planner" in found.verdict.words[0]


def test_a_search_that_is_too_small_is_the_searchs() -> None:
    tiny = DiagnosisConfig(simulator_samples=2, simulator_iterations=1)
    found = diagnosed(toy_model(), PLAN.model_copy(update={"planner": TOO_SMALL}), tiny)
    assert found.verdict.cause == "search"
    # plan.planner is a sound search here: what it solves all the same is no loss of the rows above.
    covered = diagnosed(toy_model(), PLAN, tiny)
    assert rates(covered)["true_states"] < 0.5
    assert covered.verdict.cause is None


def test_problems_whose_actions_miss_are_the_problems() -> None:
    from dataclasses import replace

    world = LinearWorld(WORLD)
    others = [replace(p, gt_actions=-p.gt_actions) for p in PROBLEMS if p.gt_actions is not None]
    solved = _row("oracle", others, lambda problem: recorded_outcome(world, problem))
    assert solved.rate < 0.5
    rows = {"oracle": solved, "evaluated": Row("evaluated", dict.fromkeys(solved.solved, False))}
    assert verdict(rows, "CEM").cause == "problems"


def test_without_recorded_actions_the_search_is_counted_from_all() -> None:
    drawn = random_problems(LinearWorld(WORLD), count=4, goal_horizon=HORIZON, seed=0)
    plan = PLAN.model_copy(update={"planner": TOO_SMALL, "max_iterations": 1})
    found = diagnosed(toy_model(), plan, DiagnosisConfig(simulator_samples=2, simulator_iterations=1), drawn)
    assert "oracle" not in found.rows
    assert found.error_ratio == []
    assert "cheaper_imagined" not in found.measures
    assert "order_random" in found.measures
    lost = losses(found.rows)
    assert lost[0].upper is None
    assert lost[0].upper_rate == 1


def rows_of(**solved: str) -> dict[str, Row]:
    """`x` is solved: rows_of(oracle="xxx", evaluated="x..")."""
    return {name: Row(name, {str(i): sign == "x" for i, sign in enumerate(signs)}) for name, signs in solved.items()}


def test_losses_by_hand() -> None:
    rows = rows_of(
        oracle="xxxxxxxxxx",
        true_states="xxxxxxxxx.",
        true_latents="xxxxxxxx..",
        in_model="xx........",
        evaluated="xx........",
        random="..........",
    )
    found = losses(rows)
    assert [(loss.cause, round(loss.value, 6)) for loss in found] == [
        ("search", 0.1),
        ("objective", 0.1),
        ("model", 0.6),
    ]
    assert not any(loss.spans for loss in found)
    told = verdict(rows, "CEM of 64 x 5")
    assert told.cause == "model"
    assert told.words[0].startswith(
        "The model: with the simulator in its place 80 % are solved instead of 20 % (60 points on 10"
    )
    assert told.loss is not None
    assert told.loss.interval is not None
    assert 0 < told.loss.interval.low < 0.6 < told.loss.interval.high < 1
    assert {loss.cause for loss in told.rivals} == {"search", "objective"}  # ten problems cannot say
    assert any("cannot be told from" in words for words in told.words)


def test_a_row_that_a_lower_one_beats_is_passed_over() -> None:
    rows = rows_of(
        oracle="xxxxxxxx", true_states="xx......", true_latents="xx......", in_model="x.......", evaluated="xxxxx..."
    )
    (lost,) = losses(rows)
    assert (lost.cause, lost.lower, lost.spans, lost.value) == ("search", "evaluated", True, 3 / 8)
    told = verdict(rows, "CEM of 64 x 5")
    assert told.words[0].startswith("Probably the search: from 'recorded actions' to 'as evaluated")
    assert "CEM of 64 x 5 may be too small" in told.words[1]
    # One problem more is chance, and passes nothing over.
    rows = rows_of(
        oracle="xxxxxxxx", true_states="xxxxxxxx", true_latents="xxxxxx..", in_model="........", evaluated="x......."
    )
    assert [(loss.cause, loss.spans, loss.value) for loss in losses(rows)] == [
        ("objective", False, 0.25),
        ("model", False, 0.75),
    ]
    # The distance leads into a wall, latents do not: the objective loses nothing.
    rows = rows_of(
        oracle="xxxxxxxx", true_states="xx......", true_latents="xxxxxxxx", in_model="........", evaluated="........"
    )
    assert [loss.cause for loss in losses(rows)] == ["model"]


def test_only_problems_that_all_rows_have_are_compared() -> None:
    rows = rows_of(oracle="xxxxxx", true_states="xx", true_latents="xx", in_model="x.", evaluated="x.....")
    (lost,) = losses(rows)
    assert (lost.num_problems, lost.value, lost.cause) == (2, 0.5, "model")
    assert not lost.is_certain
    assert any("may be chance" in words for words in verdict(rows, "CEM").words)


@pytest.mark.parametrize(("wins", "defeats", "beaten"), [(1, 0, False), (2, 0, True), (3, 1, False), (4, 1, True)])
def test_clearly_less_is_more_than_a_standard_error(wins: int, defeats: int, beaten: bool) -> None:
    upper = "x" * defeats + "." * wins + "...."
    lower = "." * defeats + "x" * wins + "...."
    found = losses(rows_of(true_latents=upper, in_model=lower, evaluated="." * len(upper)))
    assert ("in_model" in {loss.lower for loss in found} and found[0].lower == "in_model") == beaten


def test_worse_than_random_is_said() -> None:
    rows = rows_of(oracle="xxxxxxxx", evaluated="........", random="xx......")
    assert any("worse than random actions: 0 % and 25 %" in words for words in verdict(rows, "CEM").words)


def test_the_simulator_leaves_the_world_as_it_was_and_is_true() -> None:
    world, model, problem = LinearWorld(WORLD), toy_model(), PROBLEMS[0]
    world.reset_to(problem.state_0)
    assert problem.gt_actions is not None
    plan = model.model_actions(problem.gt_actions)[None].repeat(3, 1, 1)
    plan[1] = float("nan")
    start = model.dynamics.encode(model.observe(problem.frame_0, None))
    latents = SimulatedLatents(world, model, last_only=False).rollout(start, plan)
    assert latents.shape == (3, HORIZON, 1, 2)
    assert latents[1].isnan().all()
    np.testing.assert_array_equal(world.state, problem.state_0)
    torch.testing.assert_close(latents[0], model.dynamics.rollout(start, plan[:1])[0], atol=0.01, rtol=0)
    assert torch.equal(latents[0], latents[2])
    last = SimulatedLatents(world, model, last_only=True).rollout(start, plan)
    assert torch.equal(last[0], latents[0][-1:])
    states = SimulatedStates(world, model)
    here = states.encode(model.observe(problem.frame_0, None))
    assert here.tolist() == [[problem.state_0.tolist()]]
    cost = StateCost(world, problem.state_g)(states.rollout(here, plan), here)
    assert cost[0] < 1e-5
    assert cost[1].isnan()


def test_facts_survive_a_file(sound: Diagnosis) -> None:
    import json

    facts = Diagnostics(PLAN, SETTINGS, toy_model(), LinearWorld(WORLD)).facts(PROBLEMS[0])
    assert ProblemFacts.from_json(json.loads(json.dumps(facts.to_json(), allow_nan=False))) == facts
    assert len(facts.ways["oracle"].cost) == HORIZON * FRAMESKIP + 1
    assert facts.ways["oracle"].met[-1]
    assert len(facts.imagined) == len(facts.true) == len(facts.distance) == SETTINGS.candidates
    assert len(facts.dreamt) == PLAN.max_iterations
    assert json.dumps(sound.to_json(), allow_nan=False)


def test_a_shift_changes_the_picture_and_nothing_else() -> None:
    (problem,) = random_problems(WallWorld(WallWorldConfig(frame_size=28)), count=1, goal_horizon=2, seed=0)
    same = shifted_problem(problem, WallWorld(WallWorldConfig(frame_size=28)))
    np.testing.assert_array_equal(same.frame_g, problem.frame_g)
    other = shifted_problem(problem, WallWorld(WallWorldConfig(frame_size=28, shift="background")))
    assert (other.frame_0 != problem.frame_0).any()
    assert (other.frame_g != problem.frame_g).any()
    for key in ("state_0", "state_g", "proprio_0", "proprio_g"):
        np.testing.assert_array_equal(getattr(other, key), getattr(problem, key))
    assert (other.id, other.layout) == (problem.id, problem.layout)
