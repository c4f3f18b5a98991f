"""The Push-T expert: what it believes of pushes, its way round the block, and what it reaches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.worlds_pusht import make_pusht
from wm.config.worlds import LinearWorldConfig, PushTShape
from wm.contracts import Policy
from wm.envs.linear import LinearWorld
from wm.envs.pusht_expert import PushTExpert, steer
from wm.envs.pusht_path import next_place
from wm.envs.pusht_push import compose, push_table, turned
from wm.envs.pusht_shapes import BLOCKS

MOST_STEPS = 300


def steps_to_goal(expert: PushTExpert, seed: int, shape: PushTShape = "T") -> int | None:
    """Env steps until the goal is reached; None if it is not."""
    world, rng = make_pusht(shape=shape), np.random.default_rng([7, seed])
    expert.reset(world, rng)
    for step in range(MOST_STEPS):
        action = expert.act(world, rng)
        assert (np.abs(action) <= 1).all()
        world.step(action)
        if world.success(world.state, expert.goal):
            return step + 1
    return None


def test_it_is_a_policy_for_this_world_only() -> None:
    expert = PushTExpert()
    assert isinstance(expert, Policy)
    with pytest.raises(ValueError, match="linear"):
        expert.reset(LinearWorld(LinearWorldConfig(frame_size=16)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="noise_std"):
        PushTExpert(noise_std=-1)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_it_reaches_goals_nearby(noise_std: float) -> None:
    steps = [steps_to_goal(PushTExpert(noise_std, near=True), seed) for seed in range(3)]
    assert all(step is not None and step < 150 for step in steps)


@pytest.mark.parametrize("shape", ["T", "L", "I"])
def test_it_reaches_goals_anywhere(shape: PushTShape) -> None:
    assert steps_to_goal(PushTExpert(), 1, shape) is not None


@pytest.mark.slow
def test_its_success_rate_is_the_reported_one() -> None:
    reached = [steps_to_goal(PushTExpert(), seed) is not None for seed in range(50)]
    assert np.mean(reached) >= 0.9


def test_the_same_seed_is_the_same_episode() -> None:
    ends = []
    for _ in range(2):
        world, expert, rng = make_pusht(), PushTExpert(noise_std=0.1), np.random.default_rng(3)
        expert.reset(world, rng)
        ends.append([world.step(expert.act(world, rng)) for _ in range(15)])
    np.testing.assert_array_equal(*ends)


def test_steering_is_exact() -> None:
    world, rng = make_pusht(), np.random.default_rng(0)
    for _ in range(10):
        place = rng.uniform(50, 120, size=2)
        np.testing.assert_allclose(world.step(steer(world.state, place))[:2], place, atol=1e-9)


@pytest.mark.parametrize("shape", list(BLOCKS))
def test_pushes_lead_where_the_table_says(shape: PushTShape) -> None:
    world, rng, table = make_pusht(shape=shape), np.random.default_rng(0), push_table(shape, 15.0)
    for row in rng.integers(len(table.length), size=8):
        (start, heading, length, moved) = (column[row] for column in table)
        pose = np.array([256.0, 256.0, rng.uniform(0, 6)])
        begin, along = pose[:2] + turned(start, pose[2]), turned(heading, pose[2])
        world.reset_to(np.array([*begin, *pose, 0, 0]))
        num_steps = int(length / 6) + 1
        for step in range(num_steps):
            world.step(steer(world.state, begin + (step + 1) / num_steps * length * along))
        reached = np.array([world.bodies.block_x, world.bodies.block_y, world.bodies.angle])
        expected = compose(pose, moved)
        assert np.linalg.norm(reached[:2] - expected[:2]) < 2.5
        assert abs(reached[2] - expected[2]) < 0.04


def test_the_way_round_leaves_the_block_alone() -> None:
    world, rng = make_pusht(), np.random.default_rng(5)
    for _ in range(6):
        start, goal = world.sample_problem(rng)[0], world.sample_problem(rng)[0][:2]
        if BLOCKS["T"].clearance(start[2:5], goal[None])[0] < 20:
            continue
        world.reset_to(start)
        for _ in range(80):
            agent = world.state[:2]
            ahead = next_place(BLOCKS["T"], start[2:5], 15.0, agent, goal) - agent
            world.step(steer(world.state, agent + ahead * min(1, 15 / max(np.linalg.norm(ahead), 1e-9))))
        np.testing.assert_allclose(world.state[:2], goal, atol=1e-6)
        np.testing.assert_allclose(world.state[2:5], start[2:5], atol=1e-9)
