"""MPPI: its weights, its refit, and the known optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.config.errors import UserError
from wm.config.plan import MppiConfig
from wm.planning import MppiPlanner
from wm.planning.mppi import path_weights, refit
from wm.types import WarmStart

# Whole numbers: scaling and shifting them by powers of two rounds nothing away.
COSTS = st.lists(st.integers(0, 100).map(float), min_size=2, max_size=30)


def test_it_finds_the_least_squares_plan(linear_problem):
    for seed in range(3):
        p = linear_problem(seed, problems=2)
        plan = p.plan(MppiPlanner(MppiConfig(horizon=3, num_iterations=30), 1))
        torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-2)
        torch.testing.assert_close(plan.cost, p.best_cost, rtol=1e-4, atol=0)
        assert plan.trace["cost"].shape == (2, 30)
        assert (plan.trace["cost"][:, -1] < plan.trace["cost"][:, 0]).all()
        assert p.dynamics.num_encoded == 0


@settings(max_examples=60, deadline=None)
@given(costs=COSTS, scale=st.sampled_from([0.125, 4.0, 1024.0]), shift=st.sampled_from([0.0, 64.0]))
def test_weights_sum_to_one_fall_with_cost_and_know_no_unit(costs, scale, shift):
    cost = torch.tensor(costs, dtype=torch.float64)
    weights = path_weights(cost, 0.1)
    assert float(weights.sum()) == pytest.approx(1)
    ordered = weights[cost.argsort()]
    assert (ordered[:-1] >= ordered[1:]).all()
    torch.testing.assert_close(path_weights(cost * scale + shift, 0.1), weights, rtol=1e-6, atol=1e-9)


def test_weights_by_hand():
    weights = path_weights(torch.tensor([1.0, 2.0, 3.0]), 0.5)  # the spread, median less minimum, is 1
    torch.testing.assert_close(weights, torch.softmax(torch.tensor([0.0, -2.0, -4.0]), dim=0))
    assert path_weights(torch.full((4,), 5.0), 0.1).tolist() == [0.25] * 4


def test_an_exploded_rollout_does_not_flatten_the_weights():
    cost = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    exploded = torch.tensor([1.0, 2.0, 3.0, 4.0, 1e12])
    torch.testing.assert_close(path_weights(exploded, 0.1), path_weights(cost, 0.1), rtol=1e-5, atol=1e-6)
    unjudged = path_weights(torch.tensor([1.0, math.inf, 2.0, 3.0, math.inf]), 0.1)
    torch.testing.assert_close(unjudged[[0, 2, 3]], path_weights(torch.tensor([1.0, 2.0, 3.0]), 0.1))
    assert unjudged[[1, 4]].tolist() == [0.0, 0.0]


def test_equal_weights_give_the_unbiased_moments_and_one_weight_keeps_the_width():
    candidates = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(0))
    mean, std = refit(candidates, torch.full((9,), 1 / 9), torch.ones(3, 2))
    torch.testing.assert_close(mean, candidates.mean(dim=0))
    torch.testing.assert_close(std, candidates.std(dim=0))
    mean, std = refit(candidates, torch.eye(9)[4], torch.full((3, 2), 7.0))
    assert torch.equal(mean, candidates[4])
    assert torch.equal(std, torch.full((3, 2), 7.0))


def test_chunks_give_the_same_plan(linear_problem):
    plans = []
    for chunk_size in (None, 7):
        p = linear_problem(horizon=3, action_dim=2)
        plans.append(p.plan(MppiPlanner(MppiConfig(horizon=3), 2, chunk_size), seeds=[3]))
    torch.testing.assert_close(plans[1].actions, plans[0].actions, rtol=0, atol=1e-4)


def test_sample_0_is_the_mean(linear_problem):
    p = linear_problem()
    plan = p.plan(MppiPlanner(MppiConfig(horizon=3, num_iterations=2), 1), WarmStart(torch.tensor([[[0.5]]])))
    first, _, last = p.dynamics.asked
    assert first[0].flatten().tolist() == [0.5, 0.0, 0.0]
    assert torch.equal(last, plan.actions)


def test_candidates_that_the_model_cannot_judge_weigh_nothing(linear_problem):
    p = linear_problem()

    def objective(latents, goal):
        cost = p.objective(latents, goal)
        return torch.where(torch.arange(len(cost)) % 2 == 1, torch.nan, cost)

    planner = MppiPlanner(MppiConfig(horizon=3, num_iterations=30), 1)
    plan = replace(p, objective=objective).plan(planner)
    torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-2)
    with pytest.raises(UserError, match="NaN for every candidate"):
        replace(p, objective=lambda x, g: x[:, 0, 0, 0] * torch.nan).plan(planner)
