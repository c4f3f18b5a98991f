"""The linear world: its dynamics, its picture, and its best plan against what the plan must satisfy."""

from __future__ import annotations

import numpy as np
import pytest

from wm.config.worlds import LinearWorldConfig
from wm.envs.linear import LinearWorld


def last_state(world: LinearWorld, start: np.ndarray, actions: np.ndarray) -> np.ndarray:
    world.reset_to(start)
    for action in actions:
        world.step(action)
    return world.state


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("state_dim", [2, 5])
def test_stable_and_controllable(seed: int, state_dim: int) -> None:
    world = LinearWorld(LinearWorldConfig(seed=seed), state_dim=state_dim)
    assert np.abs(np.linalg.eigvals(world.transition)).max() < 1
    assert np.linalg.matrix_rank(world.control) == 2


def test_step_is_linear() -> None:
    world = LinearWorld(LinearWorldConfig())
    state, action = np.array([0.3, -0.4]), np.array([0.5, 1.5])
    world.reset_to(state)
    np.testing.assert_allclose(world.step(action), world.transition @ state + world.control @ action, rtol=1e-15)


def test_seed_makes_the_world() -> None:
    first, again, other = (LinearWorld(LinearWorldConfig(seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.transition, again.transition)
    np.testing.assert_array_equal(first.control, again.control)
    assert not np.allclose(first.transition, other.transition)


@pytest.mark.parametrize("horizon", [1, 5, 25])
def test_best_plan_reaches_the_goal(horizon: int) -> None:
    world, rng = LinearWorld(LinearWorldConfig(seed=3)), np.random.default_rng(0)
    start, goal = world.sample_problem(rng)
    plan = world.best_plan(start, goal, horizon)
    assert plan.shape == (horizon, 2)
    np.testing.assert_allclose(last_state(world, start, plan), goal, atol=1e-10)


def test_best_plan_is_the_cheapest_that_reaches() -> None:
    world, rng = LinearWorld(LinearWorldConfig(seed=3)), np.random.default_rng(0)
    start, goal = world.sample_problem(rng)
    plan = world.best_plan(start, goal, 5)
    for _ in range(50):
        detour = plan + rng.normal(size=plan.shape)
        # The last action is corrected so that the detour reaches the goal as well.
        detour[-1] += np.linalg.solve(world.control, goal - last_state(world, start, detour))
        np.testing.assert_allclose(last_state(world, start, detour), goal, atol=1e-10)
        assert np.sum(plan**2) < np.sum(detour**2)


def test_best_plan_is_nearest_when_the_goal_is_out_of_reach() -> None:
    world, rng = LinearWorld(LinearWorldConfig(seed=1), state_dim=4, action_dim=1), np.random.default_rng(0)
    start, goal = world.sample_problem(rng)
    plan = world.best_plan(start, goal, 2)
    nearest = world.distance(last_state(world, start, plan), goal)
    assert nearest > 0.01
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(30):
            other = plan + scale * rng.normal(size=plan.shape)
            assert world.distance(last_state(world, start, other), goal) >= nearest


def test_best_plan_refuses_an_empty_horizon() -> None:
    with pytest.raises(ValueError, match="horizon"):
        LinearWorld(LinearWorldConfig()).best_plan(np.zeros(2), np.ones(2), 0)


@pytest.mark.parametrize(
    "state, pixel", [((-1.0, -1.0), (0, 0)), ((1.0, -1.0), (0, 32)), ((0.0, 0.0), (16, 16)), ((7.0, 7.0), (32, 32))]
)
def test_dot_is_drawn_at_the_clipped_position(state: tuple[float, float], pixel: tuple[int, int]) -> None:
    world = LinearWorld(LinearWorldConfig(frame_size=33))
    world.reset_to(np.array(state))
    frame = world.render()
    assert frame[pixel].tolist() == [255, 0, 0]  # (row, column): y down, x right
    assert np.sum(frame[..., 1] < 20) <= 9
    assert frame[0, 16].tolist() == [255, 255, 255]


def test_success_threshold() -> None:
    world = LinearWorld(LinearWorldConfig())
    assert world.success(np.zeros(2), np.array([0.099, 0.0]))
    assert not world.success(np.zeros(2), np.array([0.101, 0.0]))


def test_overflow_is_refused() -> None:
    world = LinearWorld(LinearWorldConfig(), state_dim=3, action_dim=2)
    world.reset_to(np.full(3, 1.7e308))
    with pytest.raises(ValueError, match="finite"):
        world.step(1.7e308 * np.sign(world.transition[0] @ np.ones(3)) * np.sign(world.control[0]))


@pytest.mark.parametrize("state_dim, action_dim", [(1, 1), (2, 3), (2, 0)])
def test_impossible_sizes(state_dim: int, action_dim: int) -> None:
    with pytest.raises(ValueError, match="state_dim"):
        LinearWorld(LinearWorldConfig(), state_dim=state_dim, action_dim=action_dim)
