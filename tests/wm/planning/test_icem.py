"""iCEM: what it rolls out, what it remembers, and what that is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.golden.case import replay
from tests.toys import Integrator, LinearProblem, generators
from wm.config.errors import UserError
from wm.config.plan import CemConfig, IcemConfig, ObjectiveConfig
from wm.planning import CemPlanner, IcemPlanner, LatentObjective
from wm.planning.noise import coloured
from wm.types import Plan, WarmStart

SMALL = IcemConfig(horizon=3, num_samples=40, num_elites=5, num_iterations=2, keep=0.4)


def cheapest(p: LinearProblem, candidates: torch.Tensor, count: int) -> torch.Tensor:
    return candidates[p.cost(candidates).argsort()[:count]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [40, 22, 12, 12, 12, 13]),  # 40 / 2^i, no fewer than 2 elites; 2 kept; the mean at last
        ({"keep": 0.0}, [40, 20, 10, 10, 10, 11]),
        ({"decay": 1.0}, [40, 42, 42, 42, 42, 43]),
        ({"decay": 1.5, "keep": 1.0}, [40, 32, 23, 17, 15, 16]),
        ({"num_samples": 5}, [10, 12, 12, 12, 12, 13]),
    ],
)
def test_how_many_candidates_are_rolled_out(linear_problem, fields, expected):
    config = IcemConfig(horizon=3, num_samples=40, num_elites=5, num_iterations=6, decay=2.0, keep=0.4)
    p = linear_problem(problems=3)
    plan = p.plan(IcemPlanner(config.model_copy(update=fields), 1))
    assert [len(actions) / 3 for actions in p.dynamics.asked] == expected
    assert plan.trace["cost"].shape == (3, 6)


def test_an_iteration_s_elites_are_candidates_again(linear_problem):
    p = linear_problem()
    p.plan(IcemPlanner(SMALL, 1))
    first, second = p.dynamics.asked
    assert torch.equal(second[-2:], cheapest(p, first, 2))


def test_mean_and_std_have_momentum_and_the_mean_is_a_candidate_at_last(linear_problem):
    p, momentum, init_std = linear_problem(), 0.3, 0.7
    guess = torch.tensor([[0.5], [-0.25], [1.0]])
    noise = list(torch.randn(2, 40, 3, 1))
    config = SMALL.model_copy(update={"momentum": momentum, "init_std": init_std, "noise_beta": 0.0, "decay": 1.0})
    (generator,) = own = generators([0])
    planner = IcemPlanner(config, 1, noise=replay([noise], [generator]))
    planner.plan(p.dynamics, p.objective, p.context, p.goal, WarmStart(guess[None]), own)
    first, last = p.dynamics.asked
    torch.testing.assert_close(first, guess + init_std * noise[0])
    elites = cheapest(p, first, 5)
    mean = momentum * guess + (1 - momentum) * elites.mean(dim=0)
    std = momentum * init_std + (1 - momentum) * elites.std(dim=0)
    torch.testing.assert_close(last[0], mean)
    torch.testing.assert_close(last[1:-2], mean + std * noise[1])


def test_the_plan_is_the_cheapest_of_the_last_iteration_and_its_cost_its_own(linear_problem):
    p = linear_problem()
    plan = p.plan(IcemPlanner(SMALL, 1))
    last = p.dynamics.asked[-1]
    assert torch.equal(plan.actions, cheapest(p, last, 1))
    torch.testing.assert_close(plan.cost, p.cost(plan.actions))
    torch.testing.assert_close(plan.trace["best_cost"][:, -1], plan.cost)
    torch.testing.assert_close(plan.trace["cost"][0], torch.stack([p.cost(each).mean() for each in p.dynamics.asked]))
    assert plan.candidates is not None
    assert torch.equal(plan.candidates[0], cheapest(p, last, 2))
    assert p.dynamics.num_encoded == 0


def test_what_is_left_of_the_elites_starts_the_next_search(linear_problem):
    p = linear_problem(problems=2)
    plan = p.plan(IcemPlanner(SMALL, 1))
    start = WarmStart.after(plan, 1)
    assert start is not None
    assert start.candidates is not None
    assert plan.candidates is not None
    assert torch.equal(start.actions, plan.actions[:, 1:])
    assert torch.equal(start.candidates, plan.candidates[:, :, 1:])
    p.dynamics.asked.clear()
    p.plan(IcemPlanner(SMALL, 1), start)
    first = p.dynamics.asked[0].unflatten(0, (2, 42))
    assert torch.equal(first[:, -2:, :2], start.candidates)
    assert torch.equal(first[:, -2:, 2:], first[:, :2, 2:])  # the step that no one has planned yet is drawn


def test_a_plan_executed_whole_or_a_search_that_keeps_none_leaves_no_candidates(linear_problem):
    p = linear_problem()
    assert WarmStart.after(p.plan(IcemPlanner(SMALL, 1)), 3) is None
    plan = p.plan(IcemPlanner(SMALL.model_copy(update={"keep": 0.0}), 1))
    assert plan.candidates is None
    start = WarmStart.after(plan, 1)
    assert start is not None
    assert start.candidates is None


def test_memory_makes_replanning_never_worse_where_nothing_changed(linear_problem):
    """The same problem again, with the last plan's elites whole: the best of them is a candidate of every iteration."""
    p = linear_problem(problems=8)
    planner = IcemPlanner(SMALL, 1)
    first = p.plan(planner)
    again = p.plan(planner, WarmStart(first.actions, first.candidates), seeds=range(100, 108))
    assert (again.cost <= first.cost + 1e-6).all()
    assert (again.cost < first.cost - 1e-6).any()


def test_fewer_finite_costs_than_elites(linear_problem):
    p, calls = linear_problem(), []

    def objective(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        cost = p.objective(latents, goal)
        calls.append(cost)
        judged = torch.isin(torch.arange(len(cost)), torch.tensor([3, 8])) if len(calls) == 1 else torch.tensor(True)
        return torch.where(judged, cost, torch.nan)

    config = SMALL.model_copy(update={"keep": 1.0, "momentum": 0.0})
    plan = replace(p, objective=objective).plan(IcemPlanner(config, 1))
    first, last = p.dynamics.asked
    best, second = cheapest(p, first[[3, 8]], 2)
    assert torch.equal(last[-5:], torch.stack([best, second, best, best, best]))
    torch.testing.assert_close(last[0], (best + second) / 2)  # repeated, it still counts once
    assert plan.actions.isfinite().all()
    with pytest.raises(UserError, match="NaN for every candidate"):
        replace(p, objective=lambda x, g: x[:, 0, 0, 0] * torch.nan).plan(IcemPlanner(SMALL, 1))


def test_noise_is_coloured_along_env_steps():
    white, integrator = torch.randn(10, 4, 6), Integrator(6)
    config = IcemConfig(horizon=4, num_samples=10, num_elites=5, num_iterations=1, noise_beta=2.0)
    own = generators([0])
    planner = IcemPlanner(config, 6, 3, noise=replay([[white]], own))
    context, objective = torch.zeros(1, 1, 1, 6), LatentObjective(ObjectiveConfig())
    planner.plan(integrator, objective, context, context, None, own)
    torch.testing.assert_close(integrator.asked[0][1:], coloured(white, 2.0, 3))
    assert not torch.allclose(coloured(white, 2.0, 3), coloured(white, 2.0, 1), atol=0.1)


def test_few_rollouts_bring_it_nearer_to_the_best_plan_than_cem(linear_problem):
    """Of three numbers; where there are many and few samples, the mean of CEM's elites is the better guess (16 numbers: it wins)."""
    icem = IcemPlanner(IcemConfig(horizon=3, num_samples=20, num_elites=5, num_iterations=5), 1)
    cem = CemPlanner(CemConfig(horizon=3, num_samples=16, num_elites=5, num_iterations=5), 1)
    excess = {"icem": 0.0, "cem": 0.0}
    for seed in range(4):
        rollouts = {}
        for name, planner in (("icem", icem), ("cem", cem)):
            p = linear_problem(seed, problems=32)
            plan = p.plan(planner)
            rollouts[name] = sum(len(actions) for actions in p.dynamics.asked)
            excess[name] += float((plan.cost - p.best_cost).mean())
        assert rollouts["icem"] <= rollouts["cem"]
    assert excess["icem"] < 0.6 * excess["cem"]


class Pushed(Integrator):
    """Five pushes a model step, each a fifth of a unit: only pushes that agree get far."""

    def rollout(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return super().rollout(latent, actions.unflatten(2, (5, 2)).sum(dim=2) / 5)


def test_colour_finds_plans_that_push_one_way():
    goal = 3 * torch.randn(32, 1, 1, 2, generator=torch.Generator().manual_seed(0))

    def cost(beta: float) -> float:
        config = IcemConfig(horizon=5, num_samples=20, num_elites=5, num_iterations=5, noise_beta=beta)
        planner, objective = IcemPlanner(config, 10, 5), LatentObjective(ObjectiveConfig())
        plan: Plan = planner.plan(Pushed(10), objective, torch.zeros_like(goal), goal, None, generators(range(32)))
        return float(plan.cost.mean())

    assert cost(2.0) < 0.3 * cost(0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 10, "num_elites": 11}, r"num_elites \(11\) must be at most num_samples \(10\)"),
        ({"num_elites": 1}, "num_elites must be at least 2"),
        ({"decay": 0.9}, "greater than or equal to 1"),
        ({"momentum": 1.0}, "less than 1"),
    ],
)
def test_impossible_sizes_are_refused_in_one_line(fields, message):
    with pytest.raises(ValidationError, match=message) as raised:
        IcemConfig(**fields)
    assert all("\n" not in error["msg"] for error in raised.value.errors())
