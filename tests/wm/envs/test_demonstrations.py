"""Recorded episodes: alignment in time, exact replay, regeneration of any episode alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from wm.config.worlds import LinearWorldConfig, WallWorldConfig
from wm.contracts import World
from wm.envs.demonstrations import BatchRenderer, RecordedEpisode, make_episodes, record_episode
from wm.envs.linear import LinearWorld
from wm.envs.linear_expert import LinearExpert
from wm.envs.policies import RandomPolicy, WanderPolicy
from wm.envs.wall import WallWorld


def wall() -> WallWorld:
    return WallWorld(WallWorldConfig(frame_size=20, layout="random"))


def linear() -> LinearWorld:
    return LinearWorld(LinearWorldConfig(frame_size=16))


class OneByOne:
    """A linear world that hides its batch renderer."""

    def __init__(self) -> None:
        self._world = linear()

    def __getattr__(self, name: str) -> object:
        if name == "render_states":
            raise AttributeError(name)
        return getattr(self._world, name)


def assert_same(first: RecordedEpisode, second: RecordedEpisode) -> None:
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.states, second.states)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.layout == second.layout


@pytest.mark.parametrize("world", [wall(), linear()], ids=["wall", "linear"])
def test_shapes_and_types(world: World) -> None:
    episodes = list(make_episodes(world, WanderPolicy(), num_episodes=2, num_steps=7, seed=0))
    assert len(episodes) == 2
    for episode in episodes:
        assert episode.frames.shape == (7, world.frame_size, world.frame_size, 3)
        assert episode.frames.dtype == np.uint8
        assert episode.states.shape == (7, 2)
        assert episode.states.dtype == np.float32
        assert episode.actions.shape == (7, 2)
        assert episode.actions.dtype == np.float32


@pytest.mark.parametrize("world", [wall(), linear()], ids=["wall", "linear"])
@pytest.mark.parametrize("policy", [WanderPolicy(mean_length=1.0), RandomPolicy(std=2.0)])
def test_replay_gives_what_is_stored(world: World, policy: WanderPolicy | RandomPolicy) -> None:
    """states[t] and frames[t] are observed before actions[t]; bounces included."""
    for episode in make_episodes(world, policy, num_episodes=8, num_steps=60, seed=3):
        world.set_layout(episode.layout)
        world.reset_to(episode.states[0])
        for state, frame, action in zip(episode.states, episode.frames, episode.actions, strict=True):
            np.testing.assert_allclose(world.state, state, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(world.render(), frame)
            world.step(action)


def test_any_episode_alone() -> None:
    whole = list(make_episodes(wall(), WanderPolicy(), num_episodes=5, num_steps=10, seed=1))
    for start in (0, 3, 4):
        rest = list(make_episodes(wall(), WanderPolicy(), num_episodes=5, num_steps=10, seed=1, start_episode=start))
        assert len(rest) == 5 - start
        for resumed, original in zip(rest, whole[start:], strict=True):
            assert_same(resumed, original)
    assert list(make_episodes(wall(), WanderPolicy(), num_episodes=5, num_steps=10, seed=1, start_episode=5)) == []


def test_seeds_and_episodes_differ() -> None:
    first, second = make_episodes(wall(), WanderPolicy(), num_episodes=2, num_steps=10, seed=1)
    (other,) = make_episodes(wall(), WanderPolicy(), num_episodes=1, num_steps=10, seed=2)
    assert not np.array_equal(first.actions, second.actions)
    assert not np.array_equal(first.actions, other.actions)


def test_layouts_follow_the_config() -> None:
    drawn = [e.layout for e in make_episodes(wall(), RandomPolicy(), num_episodes=10, num_steps=1, seed=0)]
    assert len({tuple(layout.values()) for layout in drawn}) > 5
    fixed = WallWorld(WallWorldConfig(frame_size=20))
    (episode,) = make_episodes(fixed, RandomPolicy(), num_episodes=1, num_steps=1, seed=0)
    assert episode.layout == {"wall_x": 32.0, "door_y": 30.0}


def test_world_without_batch_renderer() -> None:
    one_by_one = OneByOne()
    assert not isinstance(one_by_one, BatchRenderer)
    (slow,) = make_episodes(one_by_one, RandomPolicy(), num_episodes=1, num_steps=5, seed=0)  # pyright: ignore[reportArgumentType]
    (fast,) = make_episodes(linear(), RandomPolicy(), num_episodes=1, num_steps=5, seed=0)
    assert_same(slow, fast)


class Simulated(LinearWorld):
    """A linear world that tells its simulator's states, and has a second camera, particles and a task of its own."""

    camera_names = ("wrist",)
    model_file = "<model/>"
    env_info: ClassVar = {"env_name": "Linear"}

    @property
    def flat_state(self) -> np.ndarray:
        return np.concatenate([self.state, 2 * self.state])

    @property
    def particles(self) -> np.ndarray:
        return np.outer([1.0, 2.0], [*self.state, 0.0])

    def render_camera(self, name: str) -> np.ndarray:
        return 255 - self.render()

    def task_success(self, state: np.ndarray) -> bool:
        return bool(state[0] > 0)


def test_what_else_a_world_tells_is_recorded() -> None:
    world, config = Simulated(LinearWorldConfig(frame_size=16)), LinearWorldConfig(frame_size=16)
    episode = record_episode(world, LinearExpert(), 30, seed=0, draw=4, all_cameras=True)
    assert episode.flat_states is not None
    assert episode.flat_states.dtype == np.float64
    np.testing.assert_allclose(episode.flat_states[:, :2], episode.states, atol=1e-6)
    np.testing.assert_array_equal(episode.flat_states[:, 2:], 2 * episode.flat_states[:, :2])
    assert episode.particles is not None
    np.testing.assert_allclose(episode.particles[:, 1, :2], 2 * episode.states, atol=1e-6)
    assert episode.model_file == "<model/>"
    np.testing.assert_array_equal(episode.views["wrist"], 255 - episode.frames)
    np.testing.assert_array_equal(episode.met, episode.flat_states[:, 0] > 0)  # the task's own rule, not the goal's
    # The simulator's states are exact: nothing is rounded before it starts.
    rng = np.random.default_rng([0, 4])
    expert, other = LinearExpert(), LinearWorld(config)
    expert.reset(other, rng)
    np.testing.assert_array_equal(episode.flat_states[0, :2], other.state)
    plain = record_episode(LinearWorld(config), LinearExpert(), 30, seed=0, draw=4)
    assert (plain.flat_states, plain.particles, plain.model_file, plain.views) == (None, None, None, {})
    assert plain.met is not None
    assert plain.goal is not None
    assert plain.success
    assert plain.final_success
    np.testing.assert_array_equal(
        plain.met, [bool(np.linalg.norm(state.astype(np.float64) - plain.goal) < 0.1) for state in plain.states]
    )
    assert record_episode(LinearWorld(config), RandomPolicy(), 3, seed=0, draw=0).success is None
