"""Gradient planning against the reference's numbers, the known optimum and its own promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.golden.planners import check_gradient_problems
from tests.toys import Pointer, generators
from wm.config.errors import UserError
from wm.config.plan import GradientConfig, ObjectiveConfig
from wm.planning import GradientPlanner, LatentObjective
from wm.types import WarmStart


@pytest.mark.parametrize("problems", [[0], [1], [0, 1]], ids=str)
@pytest.mark.parametrize("case_name", ["gd", "gd_zero"])
def test_every_step_is_the_reference_s(golden, case_name, problems):
    check_gradient_problems(golden(case_name), problems)


def test_it_finds_the_least_squares_plan(linear_problem):
    for seed in range(3):
        p = linear_problem(seed, problems=2)
        config = GradientConfig(horizon=3, num_iterations=500, lr=0.3, action_noise=0.0)
        plan = p.plan(GradientPlanner(config, 1))
        torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=1e-3)
        torch.testing.assert_close(plan.cost, p.best_cost, rtol=1e-5, atol=0)
        assert p.dynamics.num_encoded == 0


def test_adam_is_torch_s_for_each_problem_alone():
    """The cost of a Pointer's plan is mean_k (a - best)^2 / H, averaged over the H steps once more: a quadratic by hand."""
    goal = torch.tensor([[1.0, -2.0], [30.0, 0.5]])
    pointer, objective = Pointer(2), LatentObjective(ObjectiveConfig(frames="all", base=1.0))
    config = GradientConfig(horizon=3, num_iterations=6, optimizer="adam", lr=0.2, action_noise=0.0)
    context, own = torch.zeros(2, 1, 1, 2), generators([0, 1])
    plan = GradientPlanner(config, 2, torch.zeros(2)).plan(pointer, objective, context, goal[:, None, None], None, own)
    iterates = torch.stack(pointer.asked)
    for row, best in enumerate(goal):
        actions = torch.zeros(3, 2, requires_grad=True)
        optimizer = torch.optim.Adam([actions], lr=0.2)
        for step in range(6):
            torch.testing.assert_close(iterates[step, row], actions.detach())
            optimizer.zero_grad()
            (actions - best).square().mean(dim=1).div(3).mean().backward()
            optimizer.step()
        torch.testing.assert_close(plan.actions[row], actions.detach())
    torch.testing.assert_close(
        iterates[1].abs(), torch.full((2, 3, 2), 0.2)
    )  # Adam's first step is lr, whatever the cost


def test_the_cost_is_that_of_the_last_actions_and_only_the_actions_learn(linear_problem):
    p = linear_problem()
    p.dynamics.A.requires_grad_()
    config = GradientConfig(horizon=3, num_iterations=2, lr=0.3)
    plan = p.plan(GradientPlanner(config, 1))
    assert p.dynamics.A.grad is None
    assert not plan.actions.requires_grad
    assert torch.equal(p.dynamics.asked[-1], plan.actions)
    torch.testing.assert_close(plan.cost, p.cost(plan.actions).detach())


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
    start = WarmStart(torch.ones(1, 1, 1))
    expected = planner.plan(Curved(), objective, p.context, p.goal, start, generators([0]))
    with mode():
        context, goal, start = p.context.clone(), p.goal.clone(), WarmStart(torch.ones(1, 1, 1))
        plan = planner.plan(Curved(), objective, context, goal, start, generators([0]))
    assert torch.equal(plan.actions, expected.actions)
    assert torch.equal(start.actions, torch.ones(1, 1, 1))


def test_a_cost_that_is_no_number_names_the_cause(linear_problem):
    p = linear_problem()
    planner = GradientPlanner(GradientConfig(horizon=3, num_iterations=500, lr=1e3), 1)
    with pytest.raises(UserError, match=r"after \d+ steps: try a smaller planner.lr \(now 1000.0\)"):
        p.plan(planner)
    one_step = GradientPlanner(GradientConfig(horizon=3, num_iterations=1, lr=1e30), 1)
    with pytest.raises(UserError, match="became inf after 1 steps"):
        p.plan(one_step)
    with pytest.raises(UserError, match="after 0 steps: the model returned NaN at once"):
        replace(p, context=p.context * torch.nan).plan(planner)
