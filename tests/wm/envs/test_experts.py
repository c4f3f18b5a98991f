"""Scripts solve their world, say what they try to reach, and are found by name; noise comes on top."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm.data.samples import user_error
from wm.build import EXPERTS, build_policy, build_world
from wm.config.catalogue import world_kinds
from wm.config.policies import ExpertNoisyPolicyConfig, RandomPolicyConfig, WanderPolicyConfig
from wm.config.target import load_target
from wm.config.worlds import CustomWorldConfig, LinearWorldConfig, WallWorldConfig, WorldConfig
from wm.contracts import Policy, World
from wm.envs.policies import NoisyPolicy, RandomPolicy, RangePolicy, WanderPolicy
from wm.envs.wall_expert import WallExpert

CONFIGS = {
    "fixed": WallWorldConfig(frame_size=8),
    "random": WallWorldConfig(frame_size=8, layout="random"),
    "linear": LinearWorldConfig(frame_size=8),
}


def solved(world: World, policy: Policy, seed: int, num_steps: int = 60) -> tuple[bool, bool]:
    """At some step, and at the last."""
    rng = np.random.default_rng(seed)
    world.set_layout(world.sample_layout(rng))
    policy.reset(world, rng)
    goal = policy.goal  # type: ignore[attr-defined]
    met = []
    for _ in range(num_steps):
        action = policy.act(world, rng)
        assert (action >= world.action_low).all()
        assert (action <= world.action_high).all()
        world.step(action)
        met.append(world.success(world.state, goal))
    return any(met), met[-1]


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize(("policy", "least"), [("expert", 50), ("expert_noisy", 48)])
def test_experts_solve_their_world(name: str, policy: str, least: int) -> None:
    """Without noise at the end too, not in passing."""
    world, expert = build_world(CONFIGS[name]), build_policy(policy, CONFIGS[name])
    ever, finally_ = np.sum([solved(world, expert, seed) for seed in range(50)], axis=0)
    assert ever >= least
    assert policy != "expert" or finally_ >= least


def test_the_wall_expert_goes_through_narrow_places() -> None:
    """Every corner of the layouts, start and goal at the border."""
    world, expert = build_world(CONFIGS["fixed"]), WallExpert()
    for wall_x in (20.0, 44.0):
        for door_y in (10.0, 54.0):
            world.set_layout({"wall_x": wall_x, "door_y": door_y})
            for y in (7.4, 30.0, 56.6):
                for start, goal in (((7.4, y), (56.6, 64 - y)), ((56.6, y), (7.4, 64 - y)), ((7.4, y), (7.4, 64 - y))):
                    world.reset_to(np.array(start))
                    expert.goal = np.array(goal)
                    for _ in range(40):
                        world.step(expert.act(world, np.random.default_rng(0)))
                    np.testing.assert_allclose(world.state, goal, atol=1e-9)


def test_every_name_is_a_policy() -> None:
    for kind, target in EXPERTS.items():
        assert kind in world_kinds()
        assert isinstance(load_target(target, "EXPERTS")(), Policy)


def test_policies_by_name_and_by_settings() -> None:
    wall, linear = CONFIGS["fixed"], CONFIGS["linear"]
    assert isinstance(build_policy("random", wall), RandomPolicy)  # the one that the Wall's data were made with
    assert isinstance(build_policy("random", linear), RangePolicy)
    assert isinstance(build_policy(RandomPolicyConfig(distribution="normal"), wall), RangePolicy)
    wander = build_policy(WanderPolicyConfig(door_fraction=0.9), wall)
    assert isinstance(wander, WanderPolicy)
    assert wander.door_fraction == 0.9
    assert vars(build_policy("wander", wall)) == vars(WanderPolicy())
    noisy = build_policy(ExpertNoisyPolicyConfig(std=0.7), wall)
    assert isinstance(noisy, NoisyPolicy)
    assert noisy.std == 0.7
    assert "Did you mean 'expert'?" in user_error(lambda: build_policy("exprt", wall))


def test_a_world_without_a_script() -> None:
    config: WorldConfig = CustomWorldConfig(target="a.b:C")
    assert "world.expert=" in user_error(lambda: build_policy("expert", config))


def test_noise_has_its_size() -> None:
    world, config = build_world(CONFIGS["fixed"]), ExpertNoisyPolicyConfig(std=0.1)
    noisy, plain = build_policy(config, CONFIGS["fixed"]), WallExpert(max_step=0.5)
    noisy.policy = plain  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    noisy.reset(world, rng)
    added = [noisy.act(world, rng) - plain.act(world, rng) for _ in range(2000)]
    np.testing.assert_allclose(np.std(added, axis=0), 0.1 * 1.8, rtol=0.1)
    np.testing.assert_allclose(np.mean(added, axis=0), 0, atol=0.02)
