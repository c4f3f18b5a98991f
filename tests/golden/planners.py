"""Objective and planners against the reference's, in its own linear toy world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.golden.case import Golden, assert_golden, replay
from wm.config.plan import CemConfig, GradientConfig, ObjectiveConfig
from wm.planning.cem import CemPlanner, elite_indices, refit
from wm.planning.gradient import GradientPlanner
from wm.planning.objective import LatentObjective, channel_split, latent_cost
from wm.types import Observation, WarmStart


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


def groups(case: Golden) -> list[list[int]]:
    """Every problem alone, then all of them in one call."""
    every = list(range(case.size("n_evals")))
    return [*([problem] for problem in every), every]


def check_cem(case: Golden) -> None:
    for problems in groups(case):
        check_cem_problems(case, problems)


def check_cem_problems(case: Golden, problems: Sequence[int]) -> None:
    """Every iteration of problems planned together: candidates, costs, elites, mean, spread, and the plan."""
    config = CemConfig(
        horizon=case.size("horizon"),
        num_samples=case.size("num_samples"),
        num_elites=case.size("topk"),
        num_iterations=case.size("opt_steps"),
        init_std=case.cfg("var_scale"),
    )
    start = WarmStart(case["in/init_actions"][problems]) if "in/init_actions" in case.arrays else None
    context, goal = case.states("obs0", problems), case.states("goal", problems)
    dynamics, objective = toy_dynamics(case), toy_objective(case)
    generators = [torch.Generator() for _ in problems]
    noise = replay([list(case["in/noise"][:, problem]) for problem in problems], generators)
    planner = CemPlanner(config, case.size("action_dim"), noise=noise)
    plan = planner.plan(dynamics, objective, context, goal, start, generators)

    asked = torch.stack(dynamics.asked[: config.num_iterations]).unflatten(1, (len(problems), -1))
    for row, problem in enumerate(problems):
        candidates = asked[:, row]
        assert_golden(candidates, case["out/candidates"][:, problem])
        rows = slice(row, row + 1)
        costs = torch.stack([objective(dynamics.rollout(context[rows], batch), goal[rows]) for batch in candidates])
        assert_golden(costs, case["out/cost"][:, problem])
        assert_golden(plan.trace["best_cost"][row], case["out/best_cost"][:, problem])
        assert_golden(plan.trace["cost"][row], case["out/cost"][:, problem, 0])
        for step, (batch, cost) in enumerate(zip(candidates, costs, strict=True)):
            assert torch.equal(elite_indices(cost, config.num_elites), case["out/topk"][step, problem])
            mean, std = refit(batch, cost, config.num_elites, torch.zeros(()))
            assert_golden(mean, case["out/mu"][step, problem])
            assert_golden(std, case["out/sigma"][step, problem])
            assert_golden(plan.trace["std"][row, step], case["out/sigma"][step, problem].mean())
        assert_golden(plan.actions[row], case["out/plan"][problem])


def check_gradient(case: Golden) -> None:
    for problems in groups(case):
        check_gradient_problems(case, problems)


def check_gradient_problems(case: Golden, problems: Sequence[int]) -> None:
    """Every step of problems planned together: actions, cost, size of the gradient, and the plan."""
    config = GradientConfig(
        horizon=case.size("horizon"),
        num_iterations=case.size("opt_steps"),
        lr=case.cfg("lr"),
        action_noise=case.cfg("action_noise"),
    )
    start, zero_action = None, None
    recorded = [list(case["in/noise"][:, problem]) for problem in problems]
    if "in/init_noise" in case.arrays:
        recorded = [[case["in/init_noise"][problem], *of] for problem, of in zip(problems, recorded, strict=True)]
    else:
        start = WarmStart(case["in/init_actions"][problems])
        zero_action = (-case["in/action_mean"] / case["in/action_std"]).tile(case.size("frameskip"))
    dynamics, generators = toy_dynamics(case), [torch.Generator() for _ in problems]
    noise = replay(recorded, generators)
    planner = GradientPlanner(config, case.size("action_dim"), zero_action, noise=noise)
    context, goal = case.states("obs0", problems), case.states("goal", problems)
    plan = planner.plan(dynamics, toy_objective(case), context, goal, start, generators)

    iterates = torch.stack(dynamics.asked)
    for row, problem in enumerate(problems):
        assert_golden(iterates[0, row], case["out/actions0"][problem], 5e-6)
        assert_golden(iterates[1:, row], case["out/actions"][:, problem], 5e-6)
        assert_golden(plan.trace["cost"][row], case["out/loss"][:, problem], 5e-6)
        norms = case["out/grad"][:, problem].flatten(1).norm(dim=1)
        assert_golden(plan.trace["gradient_norm"][row], norms, 5e-6)
        assert_golden(plan.actions[row], case["out/plan"][problem], 5e-6)
