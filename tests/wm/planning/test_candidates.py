"""Costs of candidate plans: chunks, and models that return NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wm.config.errors import UserError
from wm.planning.candidates import candidate_costs, plan_cost


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num=st.integers(1, 23), chunk_size=st.integers(1, 30))
def test_chunks_change_no_cost_and_bound_the_rollouts(linear_problem, num, chunk_size):
    p = linear_problem()
    actions = torch.randn(num, 3, 1, generator=torch.Generator().manual_seed(num))
    whole = candidate_costs(p.dynamics, p.objective, p.context, p.goal, actions)
    p.dynamics.asked.clear()
    chunked = candidate_costs(p.dynamics, p.objective, p.context, p.goal, actions, chunk_size)
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)
    assert max(len(asked) for asked in p.dynamics.asked) <= chunk_size
    assert torch.equal(torch.cat(p.dynamics.asked), actions)


def test_a_candidate_without_a_cost_costs_infinity(linear_problem):
    p = linear_problem()
    costs = torch.tensor([1.0, math.nan, 2.0, math.inf])
    result = candidate_costs(p.dynamics, lambda latents, goal: costs, p.context, p.goal, torch.zeros(4, 3, 1))
    assert result.tolist() == [1.0, math.inf, 2.0, math.inf]
    nan = plan_cost(p.dynamics, lambda latents, goal: costs[1:2], p.context, p.goal, torch.zeros(3, 1))
    assert nan == math.inf


def test_a_model_that_is_broken_throughout_is_an_error_of_one_line(linear_problem):
    p = linear_problem()
    nan = torch.full((4,), math.nan)
    with pytest.raises(UserError, match=r"^the model returned NaN for every candidate plan \(4 of 4\)") as raised:
        candidate_costs(p.dynamics, lambda latents, goal: nan, p.context, p.goal, torch.zeros(4, 3, 1))
    assert "\n" not in str(raised.value)
