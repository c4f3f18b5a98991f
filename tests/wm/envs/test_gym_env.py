"""Worlds under gymnasium: its own check, seeds, ends of episodes, refusals, and processes that agree with one."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.contracts.test_world import WORLDS
from wm.build import build_env, vector_env
from wm.config.worlds import LinearWorldConfig, WallWorldConfig
from wm.envs.gym_env import WorldEnv

WALL = WallWorldConfig(frame_size=24, layout="random")


@pytest.fixture(params=list(WORLDS))
def env(request: pytest.FixtureRequest):
    made = WorldEnv(WORLDS[request.param].make(), max_steps=5, render_mode="rgb_array")
    yield made
    made.close()


def test_gymnasiums_own_check(env: WorldEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # These two are advice: proprio has no bounds that the world states, and raw actions are the point.
        warnings.filterwarnings("ignore", message=".*Box observation space (minimum|maximum) value is -?infinity.*")
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(env, skip_render_check=True)


def test_it_draws(env: WorldEnv) -> None:
    env.reset(seed=1)
    frame = env.render()
    assert frame is not None
    assert frame.shape == (env.world.frame_size, env.world.frame_size, 3)
    np.testing.assert_array_equal(frame, env.world.render())


def test_the_seed_decides(env: WorldEnv) -> None:
    seen = []
    for seed in (3, 3, 4):
        _, info = env.reset(seed=seed)
        env.action_space.seed(0)
        for _ in range(4):
            *_, info = env.step(env.action_space.sample())
        seen.append(np.concatenate([info["state"], info["goal"], info["layout"]]))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_bad_actions_get_one_line(env: WorldEnv) -> None:
    env.reset(seed=0)
    before, size = env.world.state, len(env.world.action_names)
    beyond = env.world.action_high.copy()
    beyond[-1] = np.nextafter(beyond[-1], np.inf)
    for action, words in (
        (np.full(size, np.nan), "finite"),
        (np.full(size, np.inf), "finite"),
        (np.zeros(size + 1), "shape"),
        (beyond, f"action '{env.world.action_names[-1]}' is .* expected a number in"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            env.step(action)
        assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(env.world.state, before)


def test_episodes_are_truncated(env: WorldEnv) -> None:
    env.end_on_success = False
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    env.reset()
    assert env.step(env.action_space.sample())[3] is False


def test_success_terminates_if_asked() -> None:
    at, zero = np.array([20.0, 20.0]), np.zeros(2)
    for asked in (True, False):
        env = build_env(WALL, end_on_success=asked)
        _, info = env.reset(seed=0, options={"state": at, "goal": at + 1, "layout": {"wall_x": 40, "door_y": 20}})
        assert info["layout"].tolist() == [40, 20]
        _, reward, terminated, truncated, info = env.step(zero)
        assert (terminated, truncated) == (asked, False)
        assert info["success"] is True
        assert reward == -info["distance"] == pytest.approx(-np.sqrt(2))


def test_bad_use_gets_one_line() -> None:
    with pytest.raises(ValueError, match="no option stat;"):
        build_env(WALL).reset(options={"stat": 1})
    with pytest.raises(ValueError, match="outside the picture"):
        build_env(WALL).reset(options={"goal": [70, 3]})
    with pytest.raises(gymnasium.error.ResetNeeded):
        build_env(WALL).step(np.zeros(2))
    with pytest.raises(ValueError, match="max_steps is 0"):
        build_env(WALL, max_steps=0)
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        build_env(WALL, render_mode="human")
    with pytest.raises(ValueError, match="num_envs is 0"):
        vector_env(WALL, 0)


@pytest.mark.slow
@pytest.mark.parametrize("config", [WALL, LinearWorldConfig(frame_size=16)])
def test_processes_agree_with_one(config: WallWorldConfig | LinearWorldConfig) -> None:
    together = vector_env(config, 2, max_steps=4, end_on_success=False)
    alone = [build_env(config, max_steps=4, end_on_success=False) for _ in range(2)]
    try:
        seen, _ = together.reset(seed=[5, 6])
        expected = [env.reset(seed=seed)[0] for env, seed in zip(alone, (5, 6), strict=True)]
        together.action_space.seed(0)
        for _ in range(4):
            for key in ("visual", "proprio"):
                np.testing.assert_array_equal(seen[key], np.stack([each[key] for each in expected]))
            actions = together.action_space.sample()
            seen, rewards, terminated, truncated, infos = together.step(actions)
            stepped = [env.step(action) for env, action in zip(alone, actions, strict=True)]
            expected = [each[0] for each in stepped]
            np.testing.assert_array_equal(rewards, [each[1] for each in stepped])
            np.testing.assert_array_equal(terminated, [each[2] for each in stepped])
            np.testing.assert_array_equal(truncated, [each[3] for each in stepped])
            np.testing.assert_array_equal(infos["state"], [each[4]["state"] for each in stepped])
        assert truncated.all()
    finally:
        together.close()
