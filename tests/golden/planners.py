"""Objective and planners against the reference's, in its own linear toy world."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.golden.case import Golden, assert_golden, replay
from wm.config.plan import CemConfig, GradientConfig, ObjectiveConfig
from wm.planning.cem import CemPlanner, elite_indices, refit
from wm.planning.gradient import GradientPlanner
from wm.planning.objective import LatentObjective, channel_split, latent_cost
from wm.types import Observation


@dataclass
class LinearDynamics:
    """s' = A s + B a; latents are (N, H, 1, D). Keeps every batch of actions it was asked about."""

    A: Tensor
    B: Tensor
    asked: list[Tensor] = field(default_factory=list)
    num_encoded: int = 0

    @property
    def action_dim(self) -> int:
        return self.B.shape[1]

    def encode(self, obs: Observation) -> Tensor:
        self.num_encoded += 1
        return obs.visual

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        self.asked.append(actions.detach().clone())
        state = latent[:, -1, 0].expand(len(actions), -1)
        states = []
        for action in actions.unbind(dim=1):
            state = state @ self.A.T + action @ self.B.T
            states.append(state)
        return torch.stack(states, dim=1)[:, :, None]


def toy_dynamics(case: Golden) -> LinearDynamics:
    """The world of the planner cases."""
    return LinearDynamics(case["in/A"], case["in/B"])


def toy_objective(case: Golden) -> LatentObjective:
    """Their cost: visual entries come first."""
    return LatentObjective(ObjectiveConfig(alpha=case.cfg("alpha")), channel_split(case["in/obs0_visual"][0].numel()))


def check_objective(case: Golden) -> None:
    for frames in ("last", "all"):
        costs = [
            latent_cost(
                case["in/pred_visual"],
                case["in/goal_visual"],
                case["in/pred_proprio"],
                case["in/goal_proprio"],
                float(alpha),
                frames,
                float(case.cfg("base")),
            )
            for alpha in case["in/alphas"]
        ]
        assert_golden(torch.stack(costs), case[f"out/{frames}"])


def check_cem(case: Golden) -> None:
    for problem in range(case.size("n_evals")):
        check_cem_problem(case, problem)


def check_cem_problem(case: Golden, problem: int) -> None:
    """Every iteration of one problem: candidates, costs, elites, mean, spread, and the plan."""
    config = CemConfig(
        horizon=case.size("horizon"),
        num_samples=case.size("num_samples"),
        num_elites=case.size("topk"),
        num_iterations=case.size("opt_steps"),
        init_std=case.cfg("var_scale"),
    )
    start = case["in/init_actions"][problem] if "in/init_actions" in case.arrays else None
    context, goal = case.state("obs0", problem), case.state("goal", problem)
    dynamics, objective = toy_dynamics(case), toy_objective(case)
    planner = CemPlanner(config, case.size("action_dim"), noise=replay(list(case["in/noise"][:, problem])))
    plan = planner.plan(dynamics, objective, context, goal, start, torch.Generator())

    candidates = torch.stack(dynamics.asked[: config.num_iterations])
    assert_golden(candidates, case["out/candidates"][:, problem])
    costs = torch.stack([objective(dynamics.rollout(context, batch), goal) for batch in candidates])
    assert_golden(costs, case["out/cost"][:, problem])
    assert_golden(torch.tensor(plan.trace["best_cost"]), case["out/best_cost"][:, problem])
    assert_golden(torch.tensor(plan.trace["cost"]), case["out/cost"][:, problem, 0])
    for step, (batch, cost) in enumerate(zip(candidates, costs, strict=True)):
        assert torch.equal(elite_indices(cost, config.num_elites), case["out/topk"][step, problem])
        mean, std = refit(batch, cost, config.num_elites, torch.zeros(()))
        assert_golden(mean, case["out/mu"][step, problem])
        assert_golden(std, case["out/sigma"][step, problem])
        assert_golden(torch.tensor(plan.trace["std"][step]), case["out/sigma"][step, problem].mean())
    assert_golden(plan.actions, case["out/plan"][problem])


def check_gradient(case: Golden) -> None:
    for problem in range(case.size("n_evals")):
        check_gradient_problem(case, problem)


def check_gradient_problem(case: Golden, problem: int) -> None:
    """Every step of one problem: actions, cost, size of the gradient, and the plan."""
    config = GradientConfig(
        horizon=case.size("horizon"),
        num_iterations=case.size("opt_steps"),
        lr=case.cfg("lr"),
        action_noise=case.cfg("action_noise"),
    )
    start, zero_action, noise = None, None, list(case["in/noise"][:, problem])
    if "in/init_noise" in case.arrays:
        noise = [case["in/init_noise"][problem], *noise]
    else:
        start = case["in/init_actions"][problem]
        zero_action = (-case["in/action_mean"] / case["in/action_std"]).tile(case.size("frameskip"))
    dynamics = toy_dynamics(case)
    planner = GradientPlanner(config, case.size("action_dim"), zero_action, noise=replay(noise))
    context, goal = case.state("obs0", problem), case.state("goal", problem)
    plan = planner.plan(dynamics, toy_objective(case), context, goal, start, torch.Generator())

    iterates = torch.cat(dynamics.asked)
    assert_golden(iterates[0], case["out/actions0"][problem], 5e-6)
    assert_golden(iterates[1:], case["out/actions"][:, problem], 5e-6)
    assert_golden(torch.tensor(plan.trace["cost"]), case["out/loss"][:, problem], 5e-6)
    norms = case["out/grad"][:, problem].flatten(1).norm(dim=1)
    assert_golden(torch.tensor(plan.trace["gradient_norm"]), norms, 5e-6)
    assert_golden(plan.actions, case["out/plan"][problem], 5e-6)
