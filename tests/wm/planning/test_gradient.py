"""Gradient planning against the reference's numbers, the known optimum and its own promises."""

from __future__ import annotations

import pytest
import torch

from tests.golden.planners import check_gradient_problem
from wm.config.errors import UserError
from wm.config.plan import GradientConfig
from wm.planning import GradientPlanner


@pytest.mark.parametrize("problem", [0, 1])
@pytest.mark.parametrize("case_name", ["gd", "gd_zero"])
def test_every_step_is_the_reference_s(golden, case_name, problem):
    check_gradient_problem(golden(case_name), problem)


def test_it_finds_the_least_squares_plan(linear_problem):
    for seed in range(3):
        p = linear_problem(seed)
        config = GradientConfig(horizon=3, num_iterations=500, lr=0.3, action_noise=0.0)
        plan = GradientPlanner(config, 1).plan(
            p.dynamics, p.objective, p.context, p.goal, None, torch.Generator().manual_seed(seed)
        )
        torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-3)
        assert plan.cost == pytest.approx(p.best_cost, rel=1e-5)
        assert p.dynamics.num_encoded == 0


def test_the_cost_is_that_of_the_last_actions_and_only_the_actions_learn(linear_problem):
    p = linear_problem()
    p.dynamics.A.requires_grad_()
    config = GradientConfig(horizon=3, num_iterations=2, lr=0.3)
    plan = GradientPlanner(config, 1).plan(p.dynamics, p.objective, p.context, p.goal, None, torch.Generator())
    assert p.dynamics.A.grad is None
    assert not plan.actions.requires_grad
    assert torch.equal(p.dynamics.asked[-1], plan.actions[None])
    cost = p.objective(p.dynamics.rollout(p.context, plan.actions[None]), p.goal)
    assert plan.cost == pytest.approx(cost.item())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_inside_a_caller_without_gradients(linear_problem, mode):
    p = linear_problem()

    class Curved:
        """Multiplies by what it is given, so that autograd must keep the context and the goal for the way back."""

        action_dim, encode = 1, p.dynamics.encode

        def rollout(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return p.dynamics.rollout(latent, actions) * latent

    def objective(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return p.objective(latents * goal, goal)

    planner = GradientPlanner(GradientConfig(horizon=3, num_iterations=5, lr=0.1), 1)
    expected = planner.plan(Curved(), objective, p.context, p.goal, torch.ones(1, 1), torch.Generator())
    with mode():
        context, goal, start = p.context.clone(), p.goal.clone(), torch.ones(1, 1)
        plan = planner.plan(Curved(), objective, context, goal, start, torch.Generator())
    assert torch.equal(plan.actions, expected.actions)
    assert torch.equal(start, torch.ones(1, 1))


def test_a_cost_that_is_no_number_names_the_cause(linear_problem):
    p = linear_problem()
    planner = GradientPlanner(GradientConfig(horizon=3, num_iterations=500, lr=1e3), 1)
    with pytest.raises(UserError, match=r"after \d+ steps: try a smaller planner.lr \(now 1000.0\)"):
        planner.plan(p.dynamics, p.objective, p.context, p.goal, None, torch.Generator())
    one_step = GradientPlanner(GradientConfig(horizon=3, num_iterations=1, lr=1e30), 1)
    with pytest.raises(UserError, match="became inf after 1 steps"):
        one_step.plan(p.dynamics, p.objective, p.context, p.goal, None, torch.Generator())
    with pytest.raises(UserError, match="after 0 steps: the model returned NaN at once"):
        planner.plan(p.dynamics, p.objective, p.context * torch.nan, p.goal, None, torch.Generator())
