"""A reachable goal is where the policy went, and the world stands where that way began."""

from __future__ import annotations

import numpy as np
import pytest

from wm.build import build_policy, build_world
from wm.config.worlds import LinearWorldConfig, WallWorldConfig
from wm.envs.goals import reachable_goal
from wm.envs.policies import RandomPolicy

CONFIGS = [WallWorldConfig(frame_size=8, layout="random"), LinearWorldConfig(frame_size=8)]


@pytest.mark.parametrize("config", CONFIGS, ids=["wall", "linear"])
@pytest.mark.parametrize("policy", ["random", "smooth", "wander"])
def test_the_policy_gets_there(config: WallWorldConfig | LinearWorldConfig, policy: str) -> None:
    for seed in range(10):
        world, again = build_world(config), build_world(config)
        goal = reachable_goal(world, build_policy(policy, config), np.random.default_rng(seed), 12)
        assert not world.success(world.state, goal)
        replayed, rng = build_policy(policy, config), np.random.default_rng(seed)
        while True:
            replayed.reset(again, rng)
            start = again.state
            for _ in range(12):
                again.step(replayed.act(again, rng))
            if not again.success(start, again.state):
                break
        np.testing.assert_array_equal(world.state, start)
        np.testing.assert_array_equal(goal, again.state)


def test_a_policy_that_stays() -> None:
    world = build_world(CONFIGS[0])
    with pytest.raises(ValueError, match="never left its start"):
        reachable_goal(world, RandomPolicy(std=0.0), np.random.default_rng(0), 5)
    with pytest.raises(ValueError, match="steps is 0"):
        reachable_goal(world, RandomPolicy(), np.random.default_rng(0), 0)
