"""What every planner promises."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.toys import Integrator, LinearProblem, Pointer, generators, linear_problem
from wm.config.plan import (
    CemConfig,
    GradientConfig,
    IcemConfig,
    MppiConfig,
    ObjectiveConfig,
    PlannerConfig,
    RandomConfig,
)
from wm.contracts import Planner
from wm.planning import (
    ActionBounds,
    CemPlanner,
    GradientPlanner,
    IcemPlanner,
    LatentObjective,
    Mpc,
    MppiPlanner,
    RandomPlanner,
)
from wm.types import Observation, Plan, WarmStart

HORIZON, ACTION_DIM = 4, 2
PROBLEMS, SAMPLES, ITERATIONS = 3, 40, 3
LONG_HORIZON = 3  # and one action: few enough numbers for a sampling planner to find the best plan of the linear world


@dataclass
class Case:
    """A planner to test.

    Args:
        short: a search that is not done, for promises that hold all the same.
        long: a search that is.
        within: how near a long search's actions come to the best plan's; None: it does not search.
    """

    short: PlannerConfig
    long: PlannerConfig
    within: float | None


CASES = {
    "cem": Case(
        CemConfig(horizon=HORIZON, num_samples=SAMPLES, num_elites=7, num_iterations=ITERATIONS),
        CemConfig(horizon=LONG_HORIZON),
        within=0.01,
    ),
    "icem": Case(
        IcemConfig(horizon=HORIZON, num_samples=SAMPLES, num_elites=7, num_iterations=ITERATIONS),
        IcemConfig(horizon=LONG_HORIZON, num_iterations=30, decay=1.0),
        within=0.01,
    ),
    "mppi": Case(
        MppiConfig(horizon=HORIZON, num_samples=SAMPLES, num_iterations=ITERATIONS),
        MppiConfig(horizon=LONG_HORIZON, num_iterations=30),
        within=0.01,
    ),
    "gradient": Case(
        GradientConfig(horizon=HORIZON, num_iterations=ITERATIONS, lr=0.3),
        GradientConfig(horizon=LONG_HORIZON, num_iterations=500, lr=0.3, action_noise=0.0),
        within=0.001,
    ),
    "adam": Case(
        GradientConfig(horizon=HORIZON, num_iterations=ITERATIONS, optimizer="adam", lr=0.2),
        GradientConfig(horizon=LONG_HORIZON, num_iterations=500, optimizer="adam", lr=0.03, action_noise=0.0),
        within=0.001,
    ),
    "random": Case(RandomConfig(horizon=HORIZON), RandomConfig(horizon=LONG_HORIZON), within=None),
}
SEARCHES = [name for name, case in CASES.items() if case.within is not None]
BOUNDS = ActionBounds(torch.tensor([-0.7, -0.1]), torch.tensor([0.3, 0.9]))


def build(
    config: PlannerConfig, chunk_size: int | None = None, bounds: ActionBounds | None = None, dim: int = ACTION_DIM
) -> Planner:
    match config:
        case CemConfig():
            return CemPlanner(config, dim, chunk_size, bounds=bounds)
        case IcemConfig():
            return IcemPlanner(config, dim, chunk_size=chunk_size, bounds=bounds)
        case MppiConfig():
            return MppiPlanner(config, dim, chunk_size, bounds=bounds)
        case GradientConfig():
            return GradientPlanner(config, dim, chunk_size=chunk_size, bounds=bounds)
        case RandomConfig():
            return RandomPlanner(config, dim, bounds=bounds)


def integrator_problem(problems: int = PROBLEMS) -> LinearProblem:
    """Any actions of the right sum are best: shapes and streams are checked here, not optima."""
    context = torch.arange(float(problems)).view(problems, 1, 1, 1).expand(problems, 2, 3, ACTION_DIM) / 4
    goal = torch.tensor([1.0, -2.0]).expand(problems, 1, 3, ACTION_DIM)
    unknown = torch.full((problems, HORIZON, ACTION_DIM), torch.nan)
    objective = LatentObjective(ObjectiveConfig())
    return LinearProblem(Integrator(ACTION_DIM), objective, context, goal, unknown, torch.zeros(problems))


def pointer_problem() -> LinearProblem:
    """The best plan of each problem points at its goal at every step; for most it lies outside BOUNDS."""
    goal = torch.tensor([[0.1, 0.5], [2.0, -2.0], [-0.5, 1.5]])
    context = torch.tensor([[0.1, 0.1], [0.0, 0.0], [0.5, 0.5]])
    best = (goal - context)[:, None].expand(-1, LONG_HORIZON, -1)
    objective = LatentObjective(ObjectiveConfig(frames="all", base=1.0))
    context, goal = context[:, None, None], goal[:, None, None]
    return LinearProblem(Pointer(ACTION_DIM), objective, context, goal, best, torch.zeros(PROBLEMS))


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def planner(name: str) -> Planner:
    return build(CASES[name].short)


def assert_same(plan: Plan, other: Plan, tolerance: float = 0.0) -> None:
    def close(values: Tensor, others: Tensor) -> None:
        torch.testing.assert_close(values, others, rtol=tolerance, atol=tolerance, equal_nan=True)

    close(plan.actions, other.actions)
    close(plan.cost, other.cost)
    assert plan.trace.keys() == other.trace.keys()
    for key, values in plan.trace.items():
        close(values, other.trace[key])
    assert (plan.candidates is None) == (other.candidates is None)
    if plan.candidates is not None and other.candidates is not None:
        close(plan.candidates, other.candidates)


def part(plan: Plan, index: int) -> Plan:
    """One problem's."""
    rows = slice(index, index + 1)
    trace = {key: values[rows] for key, values in plan.trace.items()}
    return Plan(plan.actions[rows], plan.cost[rows], trace, None if plan.candidates is None else plan.candidates[rows])


def test_it_is_a_planner(planner: Planner):
    assert isinstance(planner, Planner)
    assert planner.horizon == HORIZON


def test_it_returns_finite_actions_and_their_cost(name: str, planner: Planner):
    p = integrator_problem()
    plan = p.plan(planner)
    assert plan.actions.shape == (PROBLEMS, HORIZON, ACTION_DIM)
    assert plan.cost.shape == (PROBLEMS,)
    assert plan.actions.dtype == plan.cost.dtype == torch.float32
    assert plan.actions.isfinite().all()
    assert not plan.actions.requires_grad
    if name in SEARCHES:
        cost = p.objective(p.dynamics.rollout(p.context, plan.actions), p.goal)
        torch.testing.assert_close(plan.cost, cost, rtol=1e-6, atol=1e-6)
        assert (plan.cost < p.objective(p.context[:, -1:], p.goal)).all()  # better than staying where one is
    else:
        assert plan.cost.isnan().all()


def test_only_the_gradient_planner_builds_a_graph(name: str, planner: Planner):
    enabled: set[bool] = set()
    p = integrator_problem()

    def objective(latents: Tensor, goal: Tensor) -> Tensor:
        enabled.add(torch.is_grad_enabled())
        return p.objective(latents, goal)

    replace(p, objective=objective).plan(planner)
    # The gradient planner's last rollout only measures the cost of its plan.
    graph, none, unasked = {True, False}, {False}, set[bool]()
    assert enabled == {"gradient": graph, "adam": graph, "random": unasked}.get(name, none)


def test_its_trace_has_one_number_per_problem_and_iteration(name: str, planner: Planner):
    shapes = {tuple(values.shape) for values in integrator_problem().plan(planner).trace.values()}
    assert shapes == ({(PROBLEMS, ITERATIONS)} if name in SEARCHES else set())


def test_one_seed_one_plan(planner: Planner):
    p = integrator_problem()
    first, other = p.plan(planner, seeds=[1, 2, 3]), p.plan(planner, seeds=[4, 5, 6])
    assert_same(first, p.plan(planner, seeds=[1, 2, 3]))
    assert all(not torch.equal(*of) for of in zip(first.actions, other.actions, strict=True))


@pytest.mark.parametrize("warm", [False, True])
def test_company_changes_no_plan_and_takes_no_numbers(planner: Planner, warm: bool):
    p = integrator_problem()
    start = WarmStart.after(p.plan(planner), 1) if warm else None
    shared = generators([1, 2, 3])
    together = planner.plan(p.dynamics, p.objective, p.context, p.goal, start, shared)
    for index, seed in enumerate([1, 2, 3]):
        rows = slice(index, index + 1)
        own = None
        if start is not None:
            own = WarmStart(start.actions[rows], None if start.candidates is None else start.candidates[rows])
        (generator,) = generators([seed])
        alone = planner.plan(p.dynamics, p.objective, p.context[rows], p.goal[rows], own, [generator])
        assert_same(part(together, index), alone, 1e-6)
        assert torch.equal(shared[index].get_state(), generator.get_state())


def test_company_changes_no_plan_on_the_linear_world(planner: Planner):
    p = linear_problem(horizon=HORIZON, action_dim=ACTION_DIM, problems=PROBLEMS)
    together = p.plan(planner)
    for index in range(PROBLEMS):
        assert_same(part(together, index), p.alone(index).plan(planner, seeds=[index]), 1e-5)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("chunk_size", [1, 7, 16, 1000])
def test_chunks_change_no_plan_and_bound_what_is_rolled_out(name: str, chunk_size: int):
    whole, p = integrator_problem(), integrator_problem()
    expected = whole.plan(build(CASES[name].short))
    assert_same(p.plan(build(CASES[name].short, chunk_size)), expected, 1e-6)
    assert all(len(actions) <= chunk_size for actions in p.dynamics.asked)
    torch.testing.assert_close(torch.cat(p.dynamics.asked), torch.cat(whole.dynamics.asked), rtol=1e-6, atol=1e-6)


def test_the_global_generator_is_neither_read_nor_moved(planner: Planner):
    p, state_before = integrator_problem(), torch.get_rng_state()
    try:
        torch.manual_seed(1)
        first = p.plan(planner)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = p.plan(planner)
        assert_same(first, second)
        assert torch.initial_seed() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_rng_state(state_before)


@pytest.mark.parametrize("length", [0, 1, HORIZON])
def test_a_warm_start_up_to_the_horizon_is_accepted_and_left_as_it_was(planner: Planner, length: int):
    start = WarmStart(
        torch.full((PROBLEMS, length, ACTION_DIM), 0.1), torch.full((PROBLEMS, 2, length, ACTION_DIM), 0.2)
    )
    plan = integrator_problem().plan(planner, start)
    assert plan.actions.shape == (PROBLEMS, HORIZON, ACTION_DIM)
    assert torch.equal(start.actions, torch.full((PROBLEMS, length, ACTION_DIM), 0.1))
    assert start.candidates is not None
    assert torch.equal(start.candidates, torch.full((PROBLEMS, 2, length, ACTION_DIM), 0.2))


def test_a_plan_warm_starts_the_next(planner: Planner):
    p = integrator_problem()
    start = WarmStart.after(p.plan(planner), 1)
    assert start is not None
    assert p.plan(planner, start).actions.isfinite().all()


@pytest.mark.parametrize(
    "shape",
    [
        (PROBLEMS, HORIZON + 1, ACTION_DIM),
        (PROBLEMS, 1, ACTION_DIM + 1),
        (PROBLEMS + 1, 1, ACTION_DIM),
        (1, ACTION_DIM),
    ],
)
def test_a_warm_start_of_another_shape_is_refused(planner: Planner, shape: tuple[int, ...]):
    message = r"warm start must be \(B, h <= horizon, action_dim\) = \(3, <= 4, 2\), got \("
    with pytest.raises(ValueError, match=message):
        integrator_problem().plan(planner, WarmStart(torch.zeros(shape)))


@pytest.mark.parametrize("name", SEARCHES)
def test_it_finds_the_best_plan_of_a_linear_world(name: str):
    case = CASES[name]
    for seed in range(3):
        p = linear_problem(seed, LONG_HORIZON, 1, PROBLEMS)
        plan = p.plan(build(case.long, dim=1))
        torch.testing.assert_close(plan.actions, p.best_actions, rtol=0, atol=case.within)


@pytest.mark.parametrize("name", SEARCHES)
def test_it_finds_the_best_plan_within_bounds(name: str):
    case, p = CASES[name], pointer_problem()
    plan = p.plan(build(case.long, bounds=BOUNDS))
    best = p.best_actions.clamp(BOUNDS.low, BOUNDS.high)
    assert not torch.equal(best, p.best_actions)
    torch.testing.assert_close(plan.actions, best, rtol=0, atol=case.within)
    free = p.plan(build(case.long))
    torch.testing.assert_close(free.actions, p.best_actions, rtol=0, atol=case.within)


@pytest.mark.parametrize("low_high", [(-0.1, 0.3), (0.2, 0.7), (-5.0, -4.9)])
@pytest.mark.parametrize("start", [None, 9.0])
def test_nothing_leaves_the_bounds(name: str, low_high: tuple[float, float], start: float | None):
    """Neither what the model is asked about nor what comes out, wherever the search starts and the goal lies."""
    low, high = (torch.full((ACTION_DIM,), end) for end in low_high)
    p, known = pointer_problem(), None
    if start is not None:
        known = WarmStart(torch.full((PROBLEMS, 2, ACTION_DIM), start), torch.full((PROBLEMS, 2, 2, ACTION_DIM), start))
    short = CASES[name].short
    config = short.model_copy(update={"num_iterations": 12}) if name in SEARCHES else short
    plan = p.plan(build(config, bounds=ActionBounds(low, high)), known)
    assert bool(p.dynamics.asked) == (name in SEARCHES)
    for actions in [*p.dynamics.asked, plan.actions, *([] if plan.candidates is None else [plan.candidates])]:
        assert (actions >= low).all()
        assert (actions <= high).all()


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_a_mean_of_samples_at_a_bound_does_not_round_beyond_it(name: str):
    """Seven times 0.1 divided by seven is more than 0.1 in float32: every number here is the bound's, in many a weight."""
    high = torch.tensor([0.1, 0.3, 0.7, 0.9, 1.1, -0.1, -0.7, -4.9])
    config = CASES[name].short.model_copy(update={"init_std": 1e-12, "num_iterations": 12})
    pointer, start = Pointer(8), WarmStart(high.expand(1, HORIZON, 8))
    planner = build(config, bounds=ActionBounds(high - 1, high), dim=8)
    goal, objective = torch.full((1, 1, 1, 8), 9.0), LatentObjective(ObjectiveConfig(frames="all"))
    plan = planner.plan(pointer, objective, torch.zeros(1, 1, 1, 8), goal, start, generators([0]))
    assert all((actions <= high).all() for actions in [*pointer.asked, plan.actions])


def test_each_iteration_may_have_dynamics_of_its_own(name: str):
    """Iterations are told apart in order; what a plan costs is said by the dynamics that were given."""
    p, told = integrator_problem(), []

    class Anytime(Integrator):
        def encode(self, obs: Observation) -> Tensor:
            return obs.visual

        def at_iteration(self, number: int) -> Pointer:
            told.append(number)
            return Pointer(ACTION_DIM)

    plan = build(CASES[name].short).plan(
        Anytime(ACTION_DIM), p.objective, p.context, p.goal, None, generators(range(PROBLEMS))
    )
    searched = list(range(ITERATIONS)) if name in SEARCHES else []
    # iCEM's plan is the cheapest candidate of its last iteration, which therefore is not a cheap one.
    assert told == (searched[:-1] if name == "icem" else searched)
    if name in SEARCHES:
        cost = p.objective(p.dynamics.rollout(p.context, plan.actions), p.goal)
        torch.testing.assert_close(plan.cost, cost, rtol=1e-6, atol=1e-6)


def test_bounds_draw_no_other_numbers(name: str):
    p, states = pointer_problem(), []
    for bounds in (None, BOUNDS):
        own = generators(range(PROBLEMS))
        build(CASES[name].short, bounds=bounds).plan(p.dynamics, p.objective, p.context, p.goal, None, own)
        states.append(torch.stack([generator.get_state() for generator in own]))
    assert torch.equal(*states)


def test_bounds_of_another_precision_change_no_plan(name: str):
    p, short = integrator_problem(), CASES[name].short
    exact = ActionBounds(torch.tensor([-0.5, -0.25]), torch.tensor([0.5, 0.75]))
    double = ActionBounds(exact.low.double(), exact.high.double())
    assert_same(p.plan(build(short, bounds=double)), p.plan(build(short, bounds=exact)))


def test_twenty_rounds_never_roll_out_more_than_a_chunk(name: str):
    """B problems of N samples, replanned 20 times: what one rollout holds is bounded by the chunk, and nothing piles up."""
    problems, chunk_size, sizes = 7, 16, []
    p = integrator_problem(problems)

    class Watched(Integrator):
        def encode(self, obs: Observation) -> Tensor:
            return obs.visual

        def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
            sizes[-1].append((len(latent), len(actions)))
            return super().rollout(latent, actions)

    def execute(actions: Tensor) -> Observation:
        sizes.append([])
        return Observation(p.context)

    sizes.append([])
    planner = build(CASES[name].short, chunk_size)
    mpc = Mpc(planner, Watched(ACTION_DIM), p.objective, execute_steps=1, max_iterations=20)
    result = mpc.run(Observation(p.context), p.goal, generators(range(problems)), execute)
    assert result.actions.shape == (problems, 20, ACTION_DIM)
    assert all(actions <= chunk_size and latents <= actions for of in sizes for latents, actions in of)
    assert len({tuple(of) for of in sizes[1:-1]}) == 1  # a later round asks as much as an earlier one
    assert bool(sizes[0]) == (name in SEARCHES)
