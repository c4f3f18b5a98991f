"""The loop around a planner: what it hands over, what it keeps back, and that it arrives."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import pytest
import torch

from tests.toys import generators
from wm.config.plan import CemConfig, IcemConfig, RandomConfig
from wm.contracts import Planner
from wm.planning import CemPlanner, IcemPlanner, Mpc, RandomPlanner
from wm.types import Observation, Plan


class CountingPlanner:
    """Plans 1, 2, 3, ... and keeps what it was given."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.given: list[dict] = []

    def plan(self, dynamics, objective, context, goal, start, generators) -> Plan:
        first = 100.0 * len(self.given)
        self.given.append({"context": context, "goal": goal, "start": start, "generators": generators})
        return Plan(first + torch.arange(1.0, self.horizon + 1)[None, :, None], cost=torch.zeros(1))


def run(mpc: Mpc, problem, execute):
    return mpc.run(Observation(problem.context), problem.goal, generators([0]), execute)


def test_the_rest_of_a_plan_warm_starts_the_next(linear_problem):
    p, planner, executed = linear_problem(), CountingPlanner(horizon=3), []

    def execute(actions: torch.Tensor) -> Observation:
        executed.append(actions)
        return Observation(torch.full((1, 1, 1, 8), float(len(executed))))

    result = run(Mpc(planner, p.dynamics, p.objective, execute_steps=1, max_iterations=3), p, execute)
    assert planner.given[0]["start"] is None
    assert [given["start"].actions.flatten().tolist() for given in planner.given[1:]] == [[2.0, 3.0], [102.0, 103.0]]
    assert [actions.flatten().tolist() for actions in executed] == [[1.0], [101.0], [201.0]]
    assert result.actions.flatten().tolist() == [1.0, 101.0, 201.0]
    assert [each.plan.actions.shape for each in result.iterations] == [(1, 3, 1)] * 3
    assert all(0 <= each.plan_s < 1 for each in result.iterations)
    # Each round plans from what the last execution showed, and the same generators run through all of them.
    assert torch.equal(planner.given[0]["context"], p.context)
    assert [float(given["context"].mean()) for given in planner.given[1:]] == [1.0, 2.0]
    assert len({id(generator) for given in planner.given for generator in given["generators"]}) == 1


def test_the_rest_of_other_good_plans_goes_along(linear_problem):
    p = linear_problem()

    class Remembering(CountingPlanner):
        def plan(self, *arguments) -> Plan:
            plan = super().plan(*arguments)
            return replace(plan, candidates=torch.stack([plan.actions, -plan.actions], dim=1))

    planner = Remembering(horizon=3)
    mpc = Mpc(planner, p.dynamics, p.objective, execute_steps=2, max_iterations=2)
    run(mpc, p, lambda actions: Observation(p.context))
    assert planner.given[1]["start"].candidates[..., 0].tolist() == [[[3.0], [-3.0]]]


def test_problems_run_together_as_each_does_alone(linear_problem):
    """Three worlds, rounds with a memory between them: every number that is executed is the same."""
    planner = IcemPlanner(IcemConfig(horizon=4, num_samples=20, num_elites=5, num_iterations=3), 1, chunk_size=7)

    def episode(p, seeds: list[int]) -> torch.Tensor:
        state = p.context

        def execute(actions: torch.Tensor) -> Observation:
            nonlocal state
            state = p.dynamics.rollout(state, actions)[:, -1:]
            return Observation(state)

        mpc = Mpc(planner, p.dynamics, p.objective, execute_steps=1, max_iterations=4)
        return mpc.run(Observation(state), p.goal, generators(seeds), execute).actions

    p = linear_problem(horizon=4, problems=3)
    together = episode(p, [5, 6, 7])
    assert together.shape == (3, 4, 1)
    for index in range(3):
        torch.testing.assert_close(together[index], episode(p.alone(index), [5 + index])[0], rtol=1e-5, atol=1e-5)


def test_a_plan_executed_whole_leaves_no_warm_start(linear_problem):
    p, planner = linear_problem(), CountingPlanner(horizon=3)
    result = run(Mpc(planner, p.dynamics, p.objective, max_iterations=2), p, lambda actions: Observation(p.context))
    assert [given["start"] for given in planner.given] == [None, None]
    assert [each.executed.shape[1] for each in result.iterations] == [3, 3]


def test_the_loop_is_blind_to_success(linear_problem):
    """Nothing that could carry success reaches the planner: it replans although the goal is reached from the start."""
    p, planner = linear_problem(), CountingPlanner(horizon=2)
    result = run(Mpc(planner, p.dynamics, p.objective, max_iterations=4), p, lambda actions: Observation(p.goal))
    assert len(result.iterations) == 4
    assert set(planner.given[0]) == {"context", "goal", "start", "generators"}
    assert list(inspect.signature(Planner.plan).parameters)[1:] == [
        "dynamics", "objective", "context", "goal", "start", "generators",
    ]  # fmt: skip
    assert {f.name for f in fields(Observation)} == {"visual", "proprio", "has_proprio"}


def test_a_consumer_that_stops_executes_nothing_more(linear_problem):
    p, planner, executed = linear_problem(), CountingPlanner(horizon=2), []

    def execute(actions: torch.Tensor) -> Observation:
        executed.append(actions)
        return Observation(p.context)

    mpc = Mpc(planner, p.dynamics, p.objective, max_iterations=10)
    for number, _ in enumerate(mpc.iterations(Observation(p.context), p.goal, generators([0]), execute)):
        if number == 1:
            break
    assert len(executed) == len(planner.given) == 2


@pytest.mark.parametrize("execute_steps", [2, 4, None])
def test_replanning_corrects_what_the_first_plan_missed(linear_problem, execute_steps):
    """A shove, once, that the model knows nothing of: the first plan misses the goal, a later one reaches it."""
    p = linear_problem(horizon=4, action_dim=4)
    state, shove = p.context[0, 0, 0], torch.ones(8)
    distances = []

    def execute(actions: torch.Tensor) -> Observation:
        nonlocal state, shove
        for action in actions[0]:
            state = p.dynamics.A @ state + p.dynamics.B @ action + shove
            shove = torch.zeros(8)
        distances.append(float((state - p.goal.flatten()).square().mean()))
        return Observation(state.view(1, 1, 1, 8))

    planner = CemPlanner(CemConfig(horizon=4, num_iterations=30), 4)
    result = run(Mpc(planner, p.dynamics, p.objective, execute_steps, max_iterations=4), p, execute)
    assert result.actions.shape[1] == 4 * (execute_steps or 4)
    assert min(distances[1:]) < 0.1 * distances[0]


def test_the_same_seed_runs_the_same_episode(linear_problem):
    p = linear_problem()

    def episode(seed: int) -> torch.Tensor:
        mpc = Mpc(RandomPlanner(RandomConfig(horizon=3), 1), p.dynamics, p.objective, max_iterations=3)
        execute = lambda actions: Observation(p.context)  # noqa: E731
        return mpc.run(Observation(p.context), p.goal, generators([seed]), execute).actions

    assert torch.equal(episode(1), episode(1))
    assert not torch.equal(episode(1), episode(2))
    first = episode(1)
    assert not torch.equal(first[:, :3], first[:, 3:6])  # the generator moves on from round to round


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"execute_steps": 4}, r"execute_steps must be in 1\.\.3 \(the horizon\), got 4"),
        ({"execute_steps": 0}, r"execute_steps must be in 1\.\.3"),
        ({"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
    ],
)
def test_impossible_loops_are_refused(linear_problem, arguments, message):
    p = linear_problem()
    with pytest.raises(ValueError, match=message):
        Mpc(CountingPlanner(horizon=3), p.dynamics, p.objective, **arguments)
