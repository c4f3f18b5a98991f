"""The Push-T world against the original's physics, pictures, problems and success rule, for each block shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.golden.case import Golden
from wm.config.worlds import PushTWorldConfig
from wm.envs.pusht import PushTWorld, sample_original_problem
from wm.envs.pusht_shapes import BLOCKS
from wm.envs.success import pusht_success, state_distance

# The same build is exact. A state without its turns and a C library's sine may each cost a last bit.
EXACT = {"rtol": 0, "atol": 1e-9}
FLOAT32 = {"rtol": 0, "atol": 4e-5}  # the original returns its states so: half a last digit of 512
UNION_ORDER = {"rtol": 0, "atol": 1e-12}


def make_pusht(**settings: Any) -> PushTWorld:
    return PushTWorld(PushTWorldConfig(**settings))


def check_pusht(case: Golden) -> None:
    """The T, whole."""
    for sequence in range(len(case.arrays["in/init_state"])):
        check_pusht_sequence(case, sequence)
    check_pusht_frames(case)
    check_pusht_sampling(case)
    check_pusht_success(case)


def check_pusht_sequence(case: Golden, sequence: int) -> None:
    a = case.arrays
    world = make_pusht()
    world.prepare(a["in/init_state"][sequence])
    full, states = [world.bodies], [world.state]
    targets, contacts, coverage, reward = [], [], [], []
    for action in a["in/actions"][sequence]:
        states.append(world.step(action))
        full.append(world.bodies)
        targets.append(world.target)
        contacts.append(world.n_contacts)
        coverage.append(world.coverage(states[-1]))
        reward.append(world.reward(states[-1]))
    np.testing.assert_allclose(full, a["out/full"][sequence], **EXACT)
    np.testing.assert_allclose(targets, a["out/target"][sequence], **EXACT)
    np.testing.assert_allclose(states, a["out/states"][sequence], **FLOAT32)
    np.testing.assert_array_equal(contacts, a["out/n_contacts"][sequence])
    np.testing.assert_allclose(coverage, a["out/coverage"][sequence], **UNION_ORDER)
    np.testing.assert_allclose(reward, a["out/reward"][sequence], **UNION_ORDER)


def check_pusht_frames(case: Golden) -> None:
    a = case.arrays
    world, bare = make_pusht(frame_size=224), make_pusht(frame_size=224, with_target=False)
    for full, expected in zip(a["out/frames_full"], a["out/frames_224"], strict=True):
        world.reset_to(full[:7])
        np.testing.assert_array_equal(world.render(), expected)
    bare.prepare(a["in/init_state"][1])
    np.testing.assert_array_equal(bare.render(), a["out/frame_no_target_224"])


def check_pusht_sampling(case: Golden) -> None:
    a = case.arrays
    for seed, expected_start, expected_goal in zip(
        a["in/sample_seeds"], a["out/sample_init"], a["out/sample_goal"], strict=True
    ):
        start, goal = sample_original_problem(int(seed))
        np.testing.assert_array_equal(start, expected_start)
        np.testing.assert_array_equal(goal, expected_goal)


def check_pusht_success(case: Golden) -> None:
    """Ours is the original's answer, but 0 where only the original's wrap fault (angles over a turn apart) lets pass."""
    a = case.arrays
    world = make_pusht()
    for state, goal, recorded, distance in zip(
        a["in/eval_state"], a["in/eval_goal"], a["out/eval_success"], a["out/eval_state_dist"], strict=True
    ):
        original = pusht_success(state, goal, wrap="original")
        assert original == bool(recorded)
        turn = abs(state[4] - goal[4])
        off_the_circle = min(turn % (2 * math.pi), -turn % (2 * math.pi)) >= math.pi / 9
        wrap_fault = original and turn > 2 * math.pi and off_the_circle
        assert world.success(state, goal) == (original and not wrap_fault)

        np.testing.assert_allclose(state_distance(state, goal), distance, rtol=0, atol=1e-9)
        if turn <= math.pi:  # beyond it the original measures the long way round
            np.testing.assert_allclose(world.distance(state, goal), distance, rtol=0, atol=1e-9)


def check_pusht_shapes(case: Golden) -> None:
    """Corners, weight, ten steps and the frame after them."""
    a = case.arrays
    for shape, block in BLOCKS.items():
        weight = [1.0, block.moment, *block.centre_of_gravity]
        np.testing.assert_allclose(a[f"out/{shape}/mass_inertia_cog"], weight, rtol=1e-14, atol=1e-12)
        for number, part in enumerate(block.parts):
            np.testing.assert_array_equal(part.corners, a[f"out/{shape}/verts{number}"])
        assert f"out/{shape}/verts{len(block.parts)}" not in a

        world = make_pusht(shape=shape, frame_size=224)
        world.prepare(a[f"in/{shape}/init_state"])
        full = [world.bodies]
        for action in a[f"in/{shape}/actions"]:
            world.step(action)
            full.append(world.bodies)
        np.testing.assert_allclose(full, a[f"out/{shape}/full"], **EXACT)
        np.testing.assert_array_equal(world.render(), a[f"out/{shape}/frame_224"])
