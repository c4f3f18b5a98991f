"""The Wall world against the original's states, pictures, problems and success rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.golden.case import Golden
from wm.config.worlds import WallWorldConfig
from wm.envs.success import point_maze_success, pusht_success, state_distance
from wm.envs.wall import WallWorld, sample_original_problem
from wm.envs.wall_render import render_65, render_batch, render_float
from wm.envs.wall_rule import PIXELS_PER_ACTION

Rule = Callable[[np.ndarray, np.ndarray], bool]
Measure = Callable[[np.ndarray, np.ndarray], float]
STATE_TOLERANCE = 2e-6  # the original computes one clamp in float32


def make_wall(wall_x: float = 32.0, door_y: float = 30.0, frame_size: int = 65) -> WallWorld:
    world = WallWorld(WallWorldConfig(frame_size=frame_size))
    world.set_layout({"wall_x": wall_x, "door_y": door_y})
    return world


def check_wall(case: Golden) -> None:
    """A fixed or a random layout, whole."""
    for sequence in range(len(case.arrays["in/init_state"])):
        check_wall_sequence(case, sequence)
    check_wall_sampling(case)
    check_wall_success(case)
    check_wall_frames_65(case)
    check_wall_frame_224(case)


def check_wall_sequence(case: Golden, sequence: int) -> None:
    a = case.arrays
    world = make_wall(float(a["in/wall_x"][sequence]), float(a["in/door_y"][sequence]))
    world.reset_to(a["in/init_state"][sequence])
    actions = a["in/actions"][sequence]
    states = np.stack([world.state, *(world.step(action) for action in actions)])
    np.testing.assert_allclose(states, a["out/states"][sequence], rtol=0, atol=STATE_TOLERANCE)
    moved_freely = np.abs(states[1:] - states[:-1] - PIXELS_PER_ACTION * actions).max(axis=1) < STATE_TOLERANCE
    np.testing.assert_array_equal(~moved_freely, a["out/collided"][sequence].astype(bool))


def check_wall_edge(case: Golden) -> None:
    """Single steps; where the original gives NaN, ours must give something finite."""
    a = case.arrays
    for label, start, action, expected in zip(
        a["in/label"], a["in/init_state"], a["in/actions"], a["out/states"], strict=True
    ):
        world = make_wall(float(a["in/wall_x"]), float(a["in/door_y"]))
        world.reset_to(start)
        reached = world.step(action)
        assert np.isfinite(reached).all(), label
        known = np.isfinite(expected)
        np.testing.assert_allclose(reached[known], expected[known], rtol=0, atol=STATE_TOLERANCE, err_msg=str(label))


def check_wall_sampling(case: Golden) -> None:
    a = case.arrays
    for seed, wall_x, door_y, expected_start, expected_goal in zip(
        a["in/sample_seeds"],
        a["in/sample_wall_x"],
        a["in/sample_door_y"],
        a["out/sample_init"],
        a["out/sample_goal"],
        strict=True,
    ):
        start, goal = sample_original_problem(int(seed), float(wall_x), float(door_y))
        np.testing.assert_array_equal(start, expected_start)
        np.testing.assert_array_equal(goal, expected_goal)


def check_wall_success(case: Golden) -> None:
    a = case.arrays
    world = make_wall()
    pairs = list(zip(a["in/eval_state"], a["in/eval_goal"], strict=True))
    np.testing.assert_array_equal([world.success(s, g) for s, g in pairs], a["out/eval_success"].astype(bool))
    np.testing.assert_allclose([world.distance(s, g) for s, g in pairs], a["out/eval_state_dist"], rtol=0, atol=1e-12)


def check_wall_frames_65(case: Golden) -> None:
    a = case.arrays
    for state, wall_x, door_y, expected in zip(
        a["out/frames_state"], a["out/frames_wall_x"], a["out/frames_door_y"], a["out/frames_65"], strict=True
    ):
        expected_hwc = expected.transpose(1, 2, 0)
        np.testing.assert_array_equal(render_65(state[None], float(wall_x), float(door_y))[0], expected_hwc)
        np.testing.assert_array_equal(render_batch(state[None], float(wall_x), float(door_y), 65)[0], expected_hwc)


def check_wall_frame_224(case: Golden) -> None:
    a = case.arrays
    wall_x, door_y = float(a["out/frames_wall_x"][0]), float(a["out/frames_door_y"][0])
    state, expected = a["out/frames_state"][0], a["out/frame0_224"]
    unrounded = render_float(state[None], wall_x, door_y, 224)[0]
    np.testing.assert_allclose(unrounded, expected, rtol=0, atol=1e-3)

    world = make_wall(wall_x, door_y, frame_size=224)
    world.reset_to(state)
    frame = world.render()
    assert frame.dtype == np.uint8
    assert np.abs(frame - expected).max() <= 0.5 + 1e-3


def check_metrics_success(case: Golden) -> None:
    """Each world's rule on pairs of states, and the plain distance."""
    a = case.arrays
    wall = make_wall()
    rules: dict[str, tuple[Rule, Measure]] = {
        "wall": (wall.success, wall.distance),
        "point_maze": (point_maze_success, state_distance),
        "pusht": (lambda state, goal: pusht_success(state, goal, wrap="original"), state_distance),
    }
    for world, (success, distance) in rules.items():
        states, goals = a[f"in/{world}_state"].astype(np.float64), a[f"in/{world}_goal"].astype(np.float64)
        pairs = list(zip(states, goals, strict=True))
        np.testing.assert_array_equal([success(s, g) for s, g in pairs], a[f"out/{world}_success"].astype(bool))
        np.testing.assert_allclose([distance(s, g) for s, g in pairs], a[f"out/{world}_state_dist"], rtol=2e-6)
