"""The Wall world's picture against the original's, and the fast renderer against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.case import GOLDEN, load_case
from tests.golden.worlds import check_wall_frame_224, check_wall_frames_65
from wm.config.worlds import WallWorldConfig
from wm.envs.wall import WallWorld
from wm.envs.wall_render import render_batch, render_float


@pytest.mark.parametrize("case", ["wall_fixed", "wall_random"])
def test_golden_frames_65_are_exact(case: str) -> None:
    check_wall_frames_65(load_case(GOLDEN / "worlds" / f"{case}.npz"))


@pytest.mark.parametrize("case", ["wall_fixed", "wall_random"])
def test_golden_frame_224(case: str) -> None:
    check_wall_frame_224(load_case(GOLDEN / "worlds" / f"{case}.npz"))


@pytest.mark.parametrize("size", [1, 20, 64, 65, 84, 130, 224])
@pytest.mark.parametrize("wall_x, door_y", [(32.0, 30.0), (20.0, 54.0)])
def test_batch_equals_plain_resize(size: int, wall_x: float, door_y: float) -> None:
    anywhere = np.random.default_rng(0).uniform(0, 64, size=(30, 2))
    corners = np.array([[0, 0], [64, 64], [0, 64], [63.5, 0.5], [wall_x, door_y]])
    states = np.concatenate([anywhere, corners])
    fast = render_batch(states, wall_x, door_y, size).astype(int)
    plain = np.rint(render_float(states, wall_x, door_y, size)).astype(int)
    assert fast.shape == (35, size, size, 3)
    assert np.abs(fast - plain).max() <= 1
    assert np.mean(fast != plain) < 1e-4  # only where the plain value lies within 1e-4 of a half


def test_batch_equals_loop() -> None:
    world = WallWorld(WallWorldConfig(frame_size=84))
    states = np.random.default_rng(0).uniform(4, 60, size=(5, 2))
    frames = world.render_states(states)
    for state, frame in zip(states, frames, strict=True):
        world.reset_to(state)
        np.testing.assert_array_equal(world.render(), frame)


def test_dot_is_red_and_layout_shows() -> None:
    world = WallWorld(WallWorldConfig(frame_size=65))
    world.reset_to(np.array([20.0, 40.0]))
    frame = world.render()
    assert frame[40, 20].tolist() == [255, 0, 0]  # row is y, column is x
    assert frame[20, 32].tolist() == [0, 0, 0]
    assert frame[30, 32].tolist() == [255, 255, 255]
    world.set_layout({"wall_x": 44.0, "door_y": 20.0})
    frame = world.render()
    assert frame[20, 44].tolist() == [255, 255, 255]
    assert frame[30, 44].tolist() == [0, 0, 0]


def test_no_states_no_frames() -> None:
    assert render_batch(np.empty((0, 2)), 32.0, 30.0, 84).shape == (0, 84, 84, 3)
