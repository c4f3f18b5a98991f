"""What every planner promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wm.config.plan import CemConfig, GradientConfig, MppiConfig, ObjectiveConfig, RandomConfig
from wm.contracts import Objective, Planner
from wm.planning import CemPlanner, GradientPlanner, LatentObjective, MppiPlanner, RandomPlanner
from wm.types import Observation, Plan

HORIZON, ACTION_DIM = 4, 2
PLANNERS: dict[str, Callable[[], Planner]] = {
    "cem": lambda: CemPlanner(
        CemConfig(horizon=HORIZON, num_samples=40, num_elites=8, num_iterations=3), ACTION_DIM, chunk_size=16
    ),
    "mppi": lambda: MppiPlanner(MppiConfig(horizon=HORIZON, num_samples=40, num_iterations=3), ACTION_DIM),
    "gradient": lambda: GradientPlanner(GradientConfig(horizon=HORIZON, num_iterations=5, lr=0.1), ACTION_DIM),
    "random": lambda: RandomPlanner(RandomConfig(horizon=HORIZON), ACTION_DIM),
}
ASKS_THE_MODEL = {"cem", "mppi", "gradient"}


class Integrator:
    """s' = s + a in every patch: latents (N, H, 3, 2). Encoding is the caller's business, so it fails here."""

    action_dim = ACTION_DIM

    def encode(self, obs: Observation) -> Tensor:
        raise AssertionError("a planner encoded an observation")

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        return latent[:, -1:] + actions.cumsum(dim=1)[:, :, None]


CONTEXT, GOAL = torch.zeros(1, 2, 3, 2), torch.tensor([1.0, -2.0]).expand(1, 1, 3, 2)
OBJECTIVE: Objective = LatentObjective(ObjectiveConfig())


def plan_with(planner: Planner, seed: int = 0, start: Tensor | None = None) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    return planner.plan(Integrator(), OBJECTIVE, CONTEXT, GOAL, start, generator)


@pytest.fixture(params=PLANNERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def planner(name: str) -> Planner:
    return PLANNERS[name]()


def test_it_is_a_planner(planner: Planner):
    assert isinstance(planner, Planner)
    assert planner.horizon == HORIZON


def test_it_returns_finite_actions_and_their_cost(name: str, planner: Planner):
    plan = plan_with(planner)
    assert plan.actions.shape == (HORIZON, ACTION_DIM)
    assert plan.actions.dtype == torch.float32
    assert plan.actions.isfinite().all()
    assert not plan.actions.requires_grad
    assert isinstance(plan.cost, float)
    if name in ASKS_THE_MODEL:
        latents = Integrator().rollout(CONTEXT, plan.actions[None])
        assert plan.cost == pytest.approx(float(OBJECTIVE(latents, GOAL)), rel=1e-6)
        assert plan.cost < float(OBJECTIVE(CONTEXT[:, -1:], GOAL))  # better than staying where one is
    else:
        assert math.isnan(plan.cost)


def test_only_the_gradient_planner_builds_a_graph(name: str, planner: Planner):
    enabled: set[bool] = set()

    def objective(latents: Tensor, goal: Tensor) -> Tensor:
        enabled.add(torch.is_grad_enabled())
        return OBJECTIVE(latents, goal)

    planner.plan(Integrator(), objective, CONTEXT, GOAL, None, torch.Generator())
    # The gradient planner's last rollout only measures the cost of its plan.
    assert enabled == {"cem": {False}, "mppi": {False}, "gradient": {True, False}, "random": set()}[name]


def test_its_trace_has_one_number_per_iteration(name: str, planner: Planner):
    lengths = {len(values) for values in plan_with(planner).trace.values()}
    assert lengths == ({5 if name == "gradient" else 3} if name in ASKS_THE_MODEL else set())


def test_one_seed_one_plan(planner: Planner):
    first, again, other = plan_with(planner, seed=1), plan_with(planner, seed=1), plan_with(planner, seed=2)
    assert torch.equal(first.actions, again.actions)
    assert first.trace == again.trace
    assert not torch.equal(first.actions, other.actions)


def test_the_global_generator_is_neither_read_nor_moved(planner: Planner):
    state_before = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        first = plan_with(planner)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = plan_with(planner)
        assert torch.equal(first.actions, second.actions)
        assert torch.initial_seed() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_rng_state(state_before)


@pytest.mark.parametrize("length", [0, 1, HORIZON])
def test_a_warm_start_up_to_the_horizon_is_accepted_and_left_as_it_was(planner: Planner, length: int):
    start = torch.full((length, ACTION_DIM), 0.1)
    plan = plan_with(planner, start=start)
    assert plan.actions.shape == (HORIZON, ACTION_DIM)
    assert torch.equal(start, torch.full((length, ACTION_DIM), 0.1))


def test_a_plan_warm_starts_the_next(planner: Planner):
    first = plan_with(planner)
    assert plan_with(planner, start=first.actions[1:]).actions.isfinite().all()


@pytest.mark.parametrize("shape", [(HORIZON + 1, ACTION_DIM), (1, ACTION_DIM + 1), (1, ACTION_DIM, 3)])
def test_a_warm_start_of_another_shape_is_refused(planner: Planner, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"warm start must be \(h <= horizon, action_dim\) = \(<= 4, 2\), got \("):
        plan_with(planner, start=torch.zeros(shape))
