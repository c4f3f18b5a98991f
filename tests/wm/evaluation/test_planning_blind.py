"""Success never reaches whoever plans: nobody on the way asks for it, nobody holds what could tell it, and lies change nothing."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import SIZE, trained, wall_dataset
from wm.build import load
from wm.build_planning import planning_evaluation
from wm.config.limits import DeltaLimitConfig, PositionLimitConfig, VelocityLimitConfig
from wm.config.plan import CemConfig, GradientConfig, IcemConfig, MppiConfig, ObjectiveConfig, PlanConfig, RandomConfig
from wm.config.worlds import WallWorldConfig
from wm.contracts import World
from wm.envs.wall import WallWorld
from wm.evaluation.outcomes import PlanOutcome
from wm.evaluation.planning import PlanningEvaluation
from wm.evaluation.problems import dataset_problems
from wm.loaded import LoadedModel
from wm.types import Plan, Problem

SAMPLED = {"horizon": 2, "num_samples": 8, "num_iterations": 2}
PLANNERS = [
    CemConfig(**SAMPLED, num_elites=2),
    IcemConfig(**SAMPLED, num_elites=2),
    MppiConfig(**SAMPLED),
    GradientConfig(horizon=2, num_iterations=2),
    RandomConfig(horizon=2),
]
LIMITS = {
    "slow": VelocityLimitConfig(max_norm=1.0),
    "smooth": DeltaLimitConfig(max_change=0.5),
    "inside": PositionLimitConfig(positions=("x", "y"), low=(2.0, 2.0), high=(60.0, 60.0)),
}
HOUSE = Path(__file__).parents[3] / "wm"
DEAF = tuple(
    str(HOUSE / room) for room in ("planning", "models", "encoders", "loaded.py")
)  # may not ask, nor be asked for


class Judge(WallWorld):
    """Says of success what it is told to say, and to nobody who plans.

    Args:
        verdict: None: the truth.
    """

    def __init__(self, verdict: bool | None = None) -> None:
        super().__init__(WallWorldConfig(frame_size=SIZE, layout="random"))
        self.verdict = verdict
        self.asked = 0

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        refuse_planners()
        self.asked += 1
        return super().success(state, goal) if self.verdict is None else self.verdict

    def distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        refuse_planners()
        return super().distance(state, goal) if self.verdict is None else 1e3 * self.verdict


def refuse_planners() -> None:
    """Raises AssertionError, which no one on the way catches, where code of a planning room waits for the answer."""
    frame = sys._getframe(2)
    while frame is not None:
        assert not frame.f_code.co_filename.startswith(DEAF), f"{frame.f_code.co_qualname} asks whether the goal is met"
        frame = frame.f_back


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(trained("align").folder.path)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    dataset = wall_dataset()
    world = WallWorld(WallWorldConfig(frame_size=SIZE, layout="random"))
    return dataset_problems(
        world, dataset.sources, dataset.held_out_episodes(), count=2, goal_horizon=2, frameskip=5, seed=0
    )


def evaluation(model: LoadedModel, planner: Any, worlds: list[Judge], stop: bool) -> PlanningEvaluation:
    plan = PlanConfig(
        planner=planner,
        objective=ObjectiveConfig(alpha=1.0),
        execute_steps=1,
        max_iterations=3,
        limits=LIMITS,
        together=len(worlds),
        legacy_success_stop=stop,
    )
    return planning_evaluation(plan, model, worlds)


def done(outcome: PlanOutcome) -> tuple[Any, ...]:
    """All that planning and acting decide."""
    assert outcome.failure is None
    return outcome.actions, outcome.states, outcome.plans, outcome.clamped, str(outcome.cost), str(outcome.cost_trace)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda config: config.kind)
def test_lies_about_success_change_nothing_that_is_done(
    model: LoadedModel, problems: list[Problem], planner: Any
) -> None:
    truth = [Judge(), Judge()]
    expected = evaluation(model, planner, truth, stop=False).solve_together(problems)
    assert [world.asked for world in truth] == [3, 3]  # once an executed plan
    for verdict in (True, False):
        lied = evaluation(model, planner, [Judge(verdict), Judge(verdict)], stop=False).solve_together(problems)
        assert [outcome.success for outcome in lied] == [verdict, verdict]
        assert [done(outcome) for outcome in lied] == [done(outcome) for outcome in expected]
    # The reference's stop cuts a problem off; it makes nobody act differently before, nor its neighbour at any time.
    stopped, neighbour = evaluation(model, planner, [Judge(True), Judge(False)], stop=True).solve_together(problems)
    assert done(neighbour) == done(expected[1])
    num_actions = len(stopped.actions)
    assert num_actions == len(expected[0].actions) // 3
    assert stopped.actions == expected[0].actions[:num_actions]
    assert stopped.states == expected[0].states[: num_actions + 1]
    assert stopped.plans == expected[0].plans[:1]


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("planner", PLANNERS, ids=lambda config: config.kind)
def test_nothing_that_plans_can_reach_a_world(
    model: LoadedModel, problems: list[Problem], planner: Any, stop: bool
) -> None:
    """Neither planner, dynamics and objective, nor any argument of any call, nor the limits hold one, however deep."""
    worlds = [Judge(), Judge()]
    judge = evaluation(model, planner, worlds, stop)
    calls: list[tuple[Any, ...]] = []
    inner: Any = judge.mpc.planner
    plan = inner.plan

    def spied(*arguments: Any, **named: Any) -> Plan:
        calls.append((inner, plan, *arguments, named))
        found = [
            type(each).__name__ for each in reachable(calls[-1]) if isinstance(each, World | PlanOutcome | Problem)
        ]
        assert not found
        return plan(*arguments, **named)

    inner.plan = spied
    limits = judge.limits
    judge.limits = lambda: Spied(limits())  # type: ignore[assignment]
    assert all(outcome.failure is None for outcome in judge.solve_together(problems))
    assert len(calls) == 3
    assert any(isinstance(each, World) for each in reachable(judge))  # it finds one where there is one
    assert any(isinstance(each, World) for each in reachable(worlds[0].success))
    assert any(isinstance(each, World) for each in reachable([lambda: worlds[0]]))


class Spied:
    """Limits whose arguments are looked through."""

    def __init__(self, limits: Any) -> None:
        self._limits = limits
        self.clamped = limits.clamped

    def __call__(self, *arguments: Any) -> np.ndarray:
        assert not any(isinstance(each, World) for each in reachable((self._limits, arguments)))
        return self._limits(*arguments)


def reachable(root: Any) -> Iterator[Any]:
    """Every object that `root` holds, through attributes, containers, closures, partials and bound methods; not through modules."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, ModuleType | type | BuiltinFunctionType | str | bytes | int | float):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, FunctionType):
            waiting += [cell.cell_contents for cell in each.__closure__ or ()]
            waiting += [*(each.__defaults__ or ()), *(each.__kwdefaults__ or {}).values()]
        elif isinstance(each, MethodType):
            waiting += [each.__self__, each.__func__]
        elif isinstance(each, functools.partial):
            waiting += [each.func, *each.args, *each.keywords.values()]
        else:
            waiting += gc.get_referents(each)
