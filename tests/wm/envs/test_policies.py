"""What the data policies cover, and that they are functions of their generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wm.config.worlds import LinearWorldConfig, WallWorldConfig
from wm.contracts import Policy, World
from wm.envs.linear import LinearWorld
from wm.envs.policies import NoisyPolicy, RandomPolicy, RangePolicy, SmoothPolicy, WanderPolicy
from wm.envs.wall import WallWorld


def run(world: World, policy: Policy, num_steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States (T, S) and the actions (T, A) taken from them."""
    rng = np.random.default_rng(seed)
    policy.reset(world, rng)
    states, actions = [], []
    for _ in range(num_steps):
        states.append(world.state)
        actions.append(policy.act(world, rng))
        world.step(actions[-1])
    return np.array(states), np.array(actions)


def run_many(policy: Policy, num_episodes: int = 100, num_steps: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """States and actions (N, T, 2) in the fixed Wall layout."""
    world = WallWorld(WallWorldConfig(frame_size=8))
    states, actions = zip(*(run(world, policy, num_steps, seed) for seed in range(num_episodes)), strict=True)
    return np.array(states), np.array(actions)


def crossing_share(states: np.ndarray) -> float:
    right = states[..., 0] > 32
    return float(np.mean(right.any(axis=1) & ~right.all(axis=1)))


@pytest.mark.parametrize("policy", [WanderPolicy(), RandomPolicy()])
@pytest.mark.parametrize("world", [WallWorld(WallWorldConfig()), LinearWorld(LinearWorldConfig())])
def test_same_generator_same_episode(policy: Policy, world: World) -> None:
    assert isinstance(policy, Policy)
    first_states, first_actions = run(world, policy, 30, seed=5)
    run(world, policy, 7, seed=6)  # what another episode leaves in the policy must not matter
    states, actions = run(world, policy, 30, seed=5)
    np.testing.assert_array_equal(states, first_states)
    np.testing.assert_array_equal(actions, first_actions)
    assert actions.shape == (30, 2)
    assert not np.array_equal(run(world, policy, 30, seed=7)[1], actions)


def test_an_episode_leaves_nothing_behind() -> None:
    world, used = WallWorld(WallWorldConfig()), WanderPolicy(door_fraction=0.5)
    for seed in range(20):
        _, actions = run(world, used, 10, seed)  # too short to reach the door: waypoints are left over
        np.testing.assert_array_equal(actions, run(world, WanderPolicy(door_fraction=0.5), 10, seed)[1])


def test_wander_steps_have_the_published_size() -> None:
    _, actions = run_many(WanderPolicy())
    lengths = np.linalg.norm(actions, axis=-1)
    assert lengths.min() >= 0.1
    assert lengths.max() <= 1.2
    np.testing.assert_allclose(actions.std(axis=(0, 1)), 0.46, atol=0.03)
    np.testing.assert_allclose(actions.mean(axis=(0, 1)), 0, atol=0.05)


def test_wander_headings_are_correlated_in_time() -> None:
    _, wander = run_many(WanderPolicy(door_fraction=0.0))
    _, independent = run_many(RandomPolicy())

    def cosine(actions: np.ndarray) -> float:
        unit = actions / np.linalg.norm(actions, axis=-1, keepdims=True)
        return float(np.mean(np.sum(unit[:, 1:] * unit[:, :-1], axis=-1)))

    assert cosine(wander) > 0.75
    assert abs(cosine(independent)) < 0.05
    _, straight = run_many(WanderPolicy(concentration=100, door_fraction=0.0), num_episodes=20)
    assert cosine(straight) > cosine(wander)


def test_door_fraction_is_the_share_that_crosses() -> None:
    assert crossing_share(run_many(WanderPolicy(door_fraction=0.0), num_episodes=60)[0]) < 0.2
    assert 0.2 < crossing_share(run_many(WanderPolicy(door_fraction=0.3))[0]) < 0.5
    assert crossing_share(run_many(WanderPolicy(door_fraction=1.0), num_episodes=60)[0]) > 0.95


def test_wander_covers_both_rooms() -> None:
    points = run_many(WanderPolicy())[0].reshape(-1, 2)
    for low, high in ((4, 29), (35, 60)):
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=10, range=((low, high), (4, 60)))
        assert np.mean(counts > 0) > 0.96
        assert counts.max() < 5 * counts.mean()


def test_bounce_redraws_the_heading() -> None:
    """After a collision the next heading is anywhere; without one it stays near the last."""
    world = WallWorld(WallWorldConfig())
    policy = WanderPolicy(concentration=1e4, mean_length=1.0, std_length=0.0, door_fraction=0.0)
    turns_after_bounce, other_turns = [], []
    for seed in range(60):
        states, actions = run(world, policy, 60, seed)
        headings = np.arctan2(actions[:, 1], actions[:, 0])
        turns = np.abs((np.diff(headings) + np.pi) % (2 * np.pi) - np.pi)
        bounced = np.abs(states[1:] - states[:-1] - 2 * actions[:-1]).max(axis=1) > 1e-3
        turns_after_bounce.extend(turns[bounced])
        other_turns.extend(turns[~bounced])
    assert max(other_turns) < 0.1
    assert len(turns_after_bounce) > 50
    assert 1.2 < np.mean(turns_after_bounce) < 1.9  # pi/2 for a uniform turn


def test_starts_keep_the_margin_on_both_sides() -> None:
    world, policy, rng = WallWorld(WallWorldConfig()), WanderPolicy(), np.random.default_rng(0)
    starts = []
    for _ in range(300):
        policy.reset(world, rng)
        starts.append(world.state)
    x = np.array(starts)[:, 0]
    assert np.all((x <= 32 - 6.4) | (x >= 32 + 6.4))
    assert 0.4 < np.mean(x < 32) < 0.6


def test_random_policy_std() -> None:
    _, actions = run_many(RandomPolicy(std=0.25), num_episodes=40)
    np.testing.assert_allclose(actions.std(axis=(0, 1)), 0.25, atol=0.02)


def test_wander_needs_two_components() -> None:
    world = LinearWorld(LinearWorldConfig(), state_dim=3, action_dim=3)
    with pytest.raises(ValueError, match="3 action components"):
        WanderPolicy().reset(world, np.random.default_rng(0))


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"door_fraction": 1.1}, "door_fraction"),
        ({"concentration": -1.0}, "concentration"),
        ({"mean_length": 2.0}, "mean_length"),
        ({"min_length": -0.1}, "min_length"),
        ({"std_length": -1.0}, "std_length"),
    ],
)
def test_impossible_wander(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        WanderPolicy(**wrong)


def test_impossible_random() -> None:
    with pytest.raises(ValueError, match="std"):
        RandomPolicy(std=-1.0)


WALL, LINEAR = WallWorldConfig(frame_size=8), LinearWorldConfig(frame_size=8)


@pytest.mark.parametrize("world", [WallWorld(WALL), LinearWorld(LINEAR)], ids=["wall", "linear"])
def test_range_policies_fill_the_range(world: World) -> None:
    high = world.action_high
    actions = np.concatenate([run(world, RangePolicy(), 50, seed)[1] for seed in range(40)])
    assert (np.abs(actions) <= high).all()
    np.testing.assert_allclose(actions.std(axis=0), high / np.sqrt(3), rtol=0.05)
    for policy in (RangePolicy("normal", 0.3), SmoothPolicy(std=0.3)):
        actions = np.concatenate([run(world, policy, 50, seed)[1] for seed in range(80)])
        assert (np.abs(actions) <= high).all()
        np.testing.assert_allclose(actions.std(axis=0), 0.3 * high, rtol=0.08)


def test_smooth_actions_forget_at_the_time_constant() -> None:
    actions = np.array([run(WallWorld(WALL), SmoothPolicy(8.0, std=0.2), 60, seed)[1] for seed in range(300)])
    for lag in (1, 4, 8, 16):
        correlation = np.mean(actions[:, lag:] * actions[:, :-lag]) / np.mean(actions**2)
        np.testing.assert_allclose(correlation, np.exp(-lag / 8.0), atol=0.06)


def test_a_world_may_draw_its_own_actions() -> None:
    class Pushed(LinearWorld):
        def sample_action(self, rng: np.random.Generator) -> np.ndarray:
            return np.array([0.25, rng.uniform(-0.1, 0.1)])

    _, actions = run(Pushed(LINEAR), RangePolicy(), 20, 0)
    assert (actions[:, 0] == 0.25).all()
    _, actions = run(Pushed(LINEAR), RangePolicy("normal"), 20, 0)
    assert not (actions[:, 0] == 0.25).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RangePolicy(std=-1),
        lambda: SmoothPolicy(std=-1),
        lambda: SmoothPolicy(0),
        lambda: NoisyPolicy(RandomPolicy(), std=-1),
    ],
)
def test_impossible_noise(make: Callable[[], Policy]) -> None:
    with pytest.raises(ValueError, match=r"(std|time_constant) is (-1|0)"):
        make()
