"""CEM against the reference's numbers, the known optimum and its own promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.golden.planners import check_cem_problems
from wm.config.errors import UserError
from wm.config.plan import CemConfig
from wm.planning import CemPlanner
from wm.planning.cem import elite_indices, refit
from wm.types import WarmStart


@pytest.mark.parametrize("problems", [[0], [1], [0, 1]], ids=str)
@pytest.mark.parametrize("case_name", ["cem", "cem_warmstart"])
def test_every_iteration_is_the_reference_s(golden, case_name, problems):
    check_cem_problems(golden(case_name), problems)


def test_it_finds_the_least_squares_plan(linear_problem):
    for seed in range(3):
        p = linear_problem(seed, problems=2)
        plan = p.plan(CemPlanner(CemConfig(horizon=3, num_iterations=30), 1))
        torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-2)
        torch.testing.assert_close(plan.cost, p.best_cost, rtol=1e-4, atol=0)


def test_chunks_give_the_same_plan(linear_problem):
    plans = []
    for chunk_size in (None, 300, 64, 7):
        p = linear_problem(horizon=3, action_dim=2)
        plans.append(p.plan(CemPlanner(CemConfig(horizon=3, num_iterations=10), 2, chunk_size), seeds=[3]))
    for plan in plans[1:]:
        torch.testing.assert_close(plan.actions, plans[0].actions, rtol=0, atol=1e-5)
        torch.testing.assert_close(plan.cost, plans[0].cost, rtol=1e-5, atol=0)


def test_sample_0_is_the_mean_and_the_cost_is_that_of_the_plan(linear_problem):
    p = linear_problem()
    start = WarmStart(torch.tensor([[[0.5], [-0.25]]]))
    plan = p.plan(CemPlanner(CemConfig(horizon=3, num_iterations=2), 1), start)
    first, second, last = p.dynamics.asked
    assert torch.equal(first[0], torch.tensor([[0.5], [-0.25], [0.0]]))
    assert torch.equal(second[0], first[p.cost(first).topk(30, largest=False).indices].mean(dim=0))
    assert torch.equal(last, plan.actions)
    torch.testing.assert_close(plan.cost, p.cost(last))
    assert p.dynamics.num_encoded == 0


def test_candidates_that_the_model_cannot_judge_are_never_elites(linear_problem):
    p = linear_problem()

    def objective(latents, goal):
        cost = p.objective(latents, goal)
        return torch.where(torch.arange(len(cost)) % 2 == 1, torch.nan, cost)

    planner = CemPlanner(CemConfig(horizon=3, num_iterations=30), 1)
    plan = replace(p, objective=objective).plan(planner)
    torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-2)
    with pytest.raises(UserError, match="NaN for every candidate"):
        replace(p, objective=lambda x, g: x[:, 0, 0, 0] * torch.nan).plan(planner)


def test_fewer_finite_costs_than_elites():
    candidates = torch.arange(4.0).view(4, 1, 1)
    cost = torch.tensor([3.0, math.inf, 1.0, math.inf])
    assert elite_indices(cost, 3).tolist() == [2, 0]
    mean, std = refit(candidates, cost, 3, torch.full((1, 1), 7.0))
    assert mean.item() == 1.0
    assert std.item() == pytest.approx(math.sqrt(2))
    mean, std = refit(candidates, torch.tensor([math.inf, math.inf, 1.0, math.inf]), 3, torch.full((1, 1), 7.0))
    assert (mean.item(), std.item()) == (2.0, 7.0)  # one elite has no spread: the search keeps its width


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 10, "num_elites": 11}, r"num_elites \(11\) must be at most num_samples \(10\)"),
        ({"num_elites": 1}, "num_elites must be at least 2"),
        ({"horizon": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(fields, message):
    with pytest.raises(ValidationError, match=message) as raised:
        CemConfig(**fields)
    assert all("\n" not in error["msg"] for error in raised.value.errors())
