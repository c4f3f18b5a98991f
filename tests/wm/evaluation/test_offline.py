"""Planning along a record: where the best plan is known, it is found; the loop looks at the record and at nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.planners import LinearDynamics
from wm.config.plan import CemConfig, ObjectiveConfig
from wm.config.worlds import LinearWorldConfig
from wm.envs.linear import LinearWorld
from wm.evaluation import offline
from wm.evaluation.offline import OfflineEvaluation
from wm.evaluation.offline_clips import OfflineClip
from wm.planning import CemPlanner, LatentObjective
from wm.types import Observation, Plan

World = tuple[np.ndarray, np.ndarray]


def linear_world() -> World:
    world = LinearWorld(LinearWorldConfig())
    return world.transition, world.control


def recorded_clip(world: World, steps: int, seed: int, now: int = 0) -> OfflineClip:
    """States of a linear world under N(0, 1) actions; the latent is the state."""
    rng = np.random.default_rng(seed)
    transition, control = world
    actions = rng.normal(size=(now + steps, 2))
    states = [rng.normal(size=2)]
    for action in actions:
        states.append(transition @ states[-1] + control @ action)
    frames = torch.tensor(np.stack(states), dtype=torch.float32)[None, :, None]
    as_tensor = torch.tensor(actions, dtype=torch.float32)
    other = torch.tensor(rng.normal(size=(steps, 2)), dtype=torch.float32)
    return OfflineClip(f"linear/{seed}@0", f"linear/{seed}", Observation(frames), as_tensor, now, other)


def evaluation(dynamics: Any, make_planner: Any = None, **values: Any) -> OfflineEvaluation:
    def cem(horizon: int) -> CemPlanner:
        return CemPlanner(
            CemConfig(horizon=horizon, num_samples=200, num_elites=20, num_iterations=40, init_std=2.0), 2
        )

    given = {"history_len": 1, "execute_steps": 5, "seed": 0, **values}
    objective = LatentObjective(ObjectiveConfig())
    return OfflineEvaluation(
        dynamics, objective, make_planner or cem, lambda actions: actions.double().numpy(), **given
    )


def exact(world: World) -> LinearDynamics:
    return LinearDynamics(*(torch.tensor(each, dtype=torch.float32) for each in world))


def test_one_step_with_the_exact_model_plans_what_was_recorded() -> None:
    """Two states and two actions: one step to the goal has one solution."""
    world = linear_world()
    for seed in range(3):
        clip = recorded_clip(world, 1, seed)
        outcome = evaluation(exact(world)).solve(clip)
        np.testing.assert_allclose(outcome.actions["planned"], outcome.actions["recorded"], atol=1e-2)
        np.testing.assert_allclose(outcome.actions["recorded"], clip.actions, atol=1e-6)
        assert outcome.costs["recorded"] == pytest.approx([0], abs=1e-10)
        assert outcome.costs["planned"] == pytest.approx([0], abs=1e-5)
        assert min(outcome.costs["random"][0], outcome.costs["other"][0]) > 1e-4
        assert outcome.latent_error == pytest.approx([0], abs=1e-10)
        moved = clip.obs.visual[0, 1, 0] - clip.obs.visual[0, 0, 0]
        assert outcome.copy_error == pytest.approx([float(moved.square().mean())], rel=1e-5)


@pytest.mark.parametrize("execute_steps", [1, 3, 4])
def test_where_only_the_sum_counts_the_sum_is_planned(execute_steps: int) -> None:
    """s' = s + B a: any order of the actions leads to the goal, their sum is known."""
    world = np.eye(2), np.array([[0.2, 0.1], [0.0, 0.3]])
    outcome = evaluation(exact(world), execute_steps=execute_steps).solve(recorded_clip(world, 4, 7))
    assert outcome.looks == {1: [0, 1, 2, 3], 3: [0, 3], 4: [0]}[execute_steps]
    planned, recorded = (np.array(outcome.actions[who]) for who in ("planned", "recorded"))
    if execute_steps == 4:
        np.testing.assert_allclose(planned.sum(0), recorded.sum(0), atol=2e-2)
    else:  # it looks at the record, which the plan has left: only the last stretch must add up
        np.testing.assert_allclose(planned[outcome.looks[-1] :].sum(0), recorded[outcome.looks[-1] :].sum(0), atol=2e-2)
    assert np.abs(planned - recorded).max() > 0.1


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The first plan is 11, 12, ..., the second 21, 22, ...; returns what each was searched with. A planner is its horizon."""
    given: list[dict[str, Any]] = []

    def search(
        horizon: int, dynamics: Any, objective: Any, context: Tensor, goal: Tensor, start: Any, generator: Any
    ) -> Plan:
        rest = None if start is None else start.actions[0]
        given.append({"context": context, "goal": goal, "start": rest, "horizon": horizon, "model": dynamics})
        actions = torch.arange(1.0, horizon + 1)[:, None].expand(-1, 2) + 10 * len(given)
        return Plan(actions[None], torch.zeros(1))

    monkeypatch.setattr(offline, "search", search)
    return given


def following(model: Any, **values: Any) -> OfflineEvaluation:
    """With `told` plans."""
    return evaluation(model, lambda horizon: horizon, **values)


class Remembering:
    """Latents are frames; a rollout repeats the context's last frame, plus the sum of all actions that it was given."""

    action_dim = 2

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, Tensor]] = []

    def encode(self, obs: Observation) -> Tensor:
        return obs.visual

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.asked.append((latent, actions))
        steps = actions.shape[1] - latent.shape[1] + 1
        return latent[:, -1:].expand(len(actions), steps, -1, -1) + actions.sum(dim=(1, 2))[:, None, None, None]


def test_the_loop_sees_the_record_its_history_and_the_rest_of_its_plan(told: list[dict[str, Any]]) -> None:
    clip = recorded_clip(linear_world(), 5, 0, now=1)
    model = Remembering()
    outcome = following(model, history_len=3, execute_steps=2).solve(clip)
    assert outcome.failure is None
    assert outcome.looks == [0, 2, 4]
    assert [each["horizon"] for each in told] == [5, 3, 1]
    frames = clip.obs.visual
    for each, (first, last) in zip(told, [(0, 2), (1, 4), (3, 6)], strict=True):
        assert torch.equal(each["context"], frames[:, first:last])
        assert torch.equal(each["goal"], frames[:, -1:])
    assert told[0]["start"] is None
    assert told[1]["start"][:, 0].tolist() == [13, 14, 15]
    assert told[2]["start"][:, 0].tolist() == [23]
    assert np.array(outcome.actions["planned"])[:, 0].tolist() == [11, 12, 21, 22, 31]
    # The planner's model puts what led through the context before a candidate.
    model.asked.clear()
    told[1]["model"].rollout(told[1]["context"], torch.zeros(4, 3, 2))
    ((_, actions),) = model.asked
    assert torch.equal(actions[:, :2], clip.actions[1:3].expand(4, -1, -1))
    assert actions.shape == (4, 5, 2)


def test_costs_are_of_the_steps_that_are_left(told: list[dict[str, Any]]) -> None:
    clip = recorded_clip(linear_world(), 3, 1)
    outcome = following(Remembering(), execute_steps=2).solve(clip)
    goal = clip.obs.visual[0, -1, 0]
    for number, look in enumerate((0, 2)):
        seen = clip.obs.visual[0, look, 0]
        for who, actions in (("recorded", clip.actions[look:]), ("other", clip.other[look:]), ("mean", torch.zeros(1))):
            expected = float((seen + actions.sum() - goal).square().mean())
            assert outcome.costs[who][number] == pytest.approx(expected, rel=1e-4)
    plans = [torch.tensor([[11.0, 11], [12, 12], [13, 13]]), torch.tensor([[21.0, 21]])]
    for number, (look, actions) in enumerate(zip((0, 2), plans, strict=True)):
        expected = float((clip.obs.visual[0, look, 0] + actions.sum() - goal).square().mean())
        assert outcome.costs["planned"][number] == pytest.approx(expected, rel=1e-4)


def test_the_first_plan_of_each_length_is_not_timed(told: list[dict[str, Any]]) -> None:
    one = following(Remembering(), execute_steps=2)
    first = one.solve(recorded_clip(linear_world(), 3, 0))
    second = one.solve(recorded_clip(linear_world(), 3, 1))
    assert first.plan_s == [None, None]
    assert all(seconds is not None and seconds >= 0 for seconds in second.plan_s)


def solved(change: Callable[[OfflineEvaluation], None] = lambda each: None, seed: int = 0) -> list[dict[str, Any]]:
    world = linear_world()
    each = evaluation(exact(world), seed=seed)
    change(each)
    outcomes = [each.solve(recorded_clip(world, 2, number)) for number in (0, 1)]
    return [{key: value for key, value in vars(outcome).items() if key != "plan_s"} for outcome in outcomes]


def test_outcomes_depend_on_the_seed_and_not_on_what_was_solved_before() -> None:
    alone = solved(lambda each: each.solve(recorded_clip(linear_world(), 2, 5)) and None)
    assert solved() == alone
    assert solved(seed=1) != alone


def test_a_model_that_breaks_fails_its_clip_with_a_reason(told: list[dict[str, Any]]) -> None:
    class Broken(Remembering):
        def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
            return super().rollout(latent, actions) * math.nan

    outcome = following(Broken()).solve(recorded_clip(linear_world(), 2, 0))
    assert outcome.failure is not None
    assert "planned and recorded and other and random and mean actions is no number" in outcome.failure
    assert outcome.actions == {}
