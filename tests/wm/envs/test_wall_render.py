"""The Wall world's picture against the original's, and the fast renderer against the plain one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm.config.plan import WallWorldConfig
from wm.envs.wall import WallWorld
from wm.envs.wall_render import render_65, render_batch, render_float

GOLDEN = Path(__file__).parents[2] / "golden" / "worlds"


@pytest.mark.parametrize("case", ["wall_fixed", "wall_random"])
def test_golden_frames_65_are_exact(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    for state, wall_x, door_y, expected in zip(
        golden["out/frames_state"],
        golden["out/frames_wall_x"],
        golden["out/frames_door_y"],
        golden["out/frames_65"],
        strict=True,
    ):
        expected_hwc = expected.transpose(1, 2, 0)
        np.testing.assert_array_equal(render_65(state[None], float(wall_x), float(door_y))[0], expected_hwc)
        np.testing.assert_array_equal(render_batch(state[None], float(wall_x), float(door_y), 65)[0], expected_hwc)


@pytest.mark.parametrize("case", ["wall_fixed", "wall_random"])
def test_golden_frame_224(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    layout = {"wall_x": float(golden["out/frames_wall_x"][0]), "door_y": float(golden["out/frames_door_y"][0])}
    state, expected = golden["out/frames_state"][0], golden["out/frame0_224"]
    unrounded = render_float(state[None], layout["wall_x"], layout["door_y"], 224)[0]
    np.testing.assert_allclose(unrounded, expected, rtol=0, atol=1e-3)

    world = WallWorld(WallWorldConfig(frame_size=224))
    world.set_layout(layout)
    world.reset_to(state)
    frame = world.render()
    assert frame.dtype == np.uint8
    assert np.abs(frame - expected).max() <= 0.5 + 1e-3


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
