"""The Wall world's picture against the original's, and the fast renderer against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.case import GOLDEN, load_case
from tests.golden.worlds import check_wall_frame_224, check_wall_frames_65
from wm.config.worlds import WallWorldConfig
from wm.envs.wall import WallWorld
from wm.envs.wall_render import is_black, render_batch, render_float
from wm.envs.wall_shift import LOOKS, Look, render_shifted


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


SHIFTS = ("light", "colours", "background", "agent_size")


@pytest.mark.parametrize("size", [24, 65, 224])
def test_a_plain_look_drawn_in_full_is_the_plain_picture(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shifted renderer with nothing shifted: up to the floor that the original takes of its tint."""
    monkeypatch.setitem(LOOKS, "plain", Look())
    states = np.random.default_rng(0).uniform(4, 60, size=(10, 2))
    full = render_shifted(states, is_black(32.0, 30.0), size, "plain").astype(int)
    assert np.abs(full - render_batch(states, 32.0, 30.0, size)).max() <= 1


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_the_picture_alone(shift: str) -> None:
    plain, shifted = (WallWorld(WallWorldConfig(frame_size=65, shift=s)) for s in ("none", shift))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for world in (plain, shifted):
        world.reset_to(np.array([20.0, 40.0]))
    for action in rng.uniform(-1.8, 1.8, (40, 2)):
        np.testing.assert_array_equal(plain.step(action), shifted.step(action))
    seen, usual = shifted.render().astype(float), plain.render().astype(float)
    assert np.abs(seen - usual).max() > 40
    np.testing.assert_array_equal(shifted.render(), shifted.render_states(shifted.state[None])[0])


def test_what_each_shift_is() -> None:
    frames = {}
    for shift in ("none", *SHIFTS):
        world = WallWorld(WallWorldConfig(frame_size=65, shift=shift))  # type: ignore[arg-type]
        world.reset_to(np.array([20.0, 40.0]))
        frames[shift] = world.render().astype(int)
    assert frames["light"][20, 60 - 2].max() < 0.5 * frames["light"][20, 6].max()
    assert frames["colours"][40, 20].tolist() == [20, 140, 60]
    assert len(np.unique(frames["background"][6:58, 6:28].reshape(-1, 3), axis=0)) > 2
    assert frames["background"][40, 20].tolist() == [255, 0, 0]
    red = {shift: int((frames[shift][..., 1] < 128)[6:58, 6:28].sum()) for shift in ("none", "agent_size")}
    assert red["agent_size"] > 2 * red["none"]
    wall = {shift: frames[shift][10, 32].tolist() for shift in frames}
    assert wall == {shift: [40, 60, 120] if shift == "colours" else [0, 0, 0] for shift in frames}
