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
@given(problems=st.integers(1, 4), num=st.integers(1, 23), chunk_size=st.integers(1, 30))
def test_chunks_change_no_cost_and_bound_the_rollouts(linear_problem, problems, num, chunk_size):
    p = linear_problem(problems=problems)
    actions = torch.randn(problems, num, 3, 1, generator=torch.Generator().manual_seed(num))
    alone = [p.alone(index).cost(of) for index, of in enumerate(actions)]
    costs = candidate_costs(p.dynamics, p.objective, p.context, p.goal, actions, chunk_size)
    torch.testing.assert_close(costs, torch.stack(alone), rtol=1e-6, atol=1e-6)
    assert max(len(asked) for asked in p.dynamics.asked) <= chunk_size
    assert torch.equal(torch.cat(p.dynamics.asked), actions.flatten(0, 1))
    plans = plan_cost(p.dynamics, p.objective, p.context, p.goal, actions[:, 0], chunk_size)
    torch.testing.assert_close(plans, costs[:, 0], rtol=1e-6, atol=1e-6)


def test_one_problem_s_context_is_not_copied_for_its_candidates(linear_problem):
    p, rows = linear_problem(), []

    class Watched:
        action_dim, encode = 1, p.dynamics.encode

        def rollout(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            rows.append((len(latent), len(actions)))
            return p.dynamics.rollout(latent, actions)

    candidate_costs(Watched(), p.objective, p.context, p.goal, torch.zeros(1, 10, 3, 1), chunk_size=4)
    assert rows == [(1, 4), (1, 4), (1, 2)]


def test_a_candidate_without_a_cost_costs_infinity(linear_problem):
    p = linear_problem()
    costs = torch.tensor([1.0, math.nan, 2.0, math.inf])
    result = candidate_costs(p.dynamics, lambda latents, goal: costs, p.context, p.goal, torch.zeros(1, 4, 3, 1))
    assert result.tolist() == [[1.0, math.inf, 2.0, math.inf]]
    nan = plan_cost(p.dynamics, lambda latents, goal: costs[1:2], p.context, p.goal, torch.zeros(1, 3, 1))
    assert nan.tolist() == [math.inf]


def test_a_model_that_is_broken_throughout_is_an_error_of_one_line(linear_problem):
    p = linear_problem()
    nan = torch.full((4,), math.nan)
    with pytest.raises(UserError, match=r"^the model returned NaN for every candidate plan \(4 of 4\)") as raised:
        candidate_costs(p.dynamics, lambda latents, goal: nan, p.context, p.goal, torch.zeros(1, 4, 3, 1))
    assert "\n" not in str(raised.value)


def test_a_problem_that_is_lost_among_others_is_an_error(linear_problem):
    p = linear_problem(problems=3)
    costs = torch.tensor([1.0, 2.0, math.nan, math.nan, 1.0, math.nan])
    message = r"NaN for every candidate plan \(2 of 2, in 1 of 3 problems\)"
    with pytest.raises(UserError, match=message):
        candidate_costs(p.dynamics, lambda latents, goal: costs, p.context, p.goal, torch.zeros(3, 2, 3, 1))
