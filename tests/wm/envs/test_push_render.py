"""Pictures of the table: where things appear in them, which worlds may be alive, what becomes of garbage."""

from __future__ import annotations

import gc
from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from wm.build import build_world
from wm.config.worlds import GranularWorldConfig, RopeWorldConfig
from wm.envs import mujoco_camera
from wm.envs.push_table import PushTableWorld, as_push_table


def rope(size: int = 224, **kwargs: object) -> PushTableWorld:
    return as_push_table(build_world(RopeWorldConfig.model_validate({"frame_size": size, **kwargs})))


def grains(size: int = 224, num_grains: int = 2, **kwargs: object) -> PushTableWorld:
    config = {"frame_size": size, "num_grains": num_grains, **kwargs}
    return as_push_table(build_world(GranularWorldConfig.model_validate(config)))


def published_pixel(point: np.ndarray, size: int) -> np.ndarray:
    """Column and row of a particle under the original's camera: at (6, 10, -6), yaw 135, pitch -45, 45 degrees high."""
    yaw, pitch = np.radians(135), np.radians(-45)
    forward = np.array([-np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)])
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    ray = point - [6, 10, -6]
    focal = size / 2 / np.tan(np.radians(22.5))
    return size / 2 + focal * np.array([ray @ right, -(ray @ up)]) / (ray @ forward)


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.5, 0.0), (0.0, 1.5), (-2.0, -3.0)])
def test_the_camera_is_the_published_one(place: tuple[float, float]) -> None:
    world = grains(448)
    x, z = place
    state = np.array([x, 0.57, z, 9, 0.07, 9])  # the other grain is out of sight
    frame = world.render_states(state[None])[0].astype(int)
    rows, columns = np.nonzero(frame[..., 0] - frame[..., 2] > 40)  # sand-coloured
    assert len(rows) > 5
    seen = np.array([columns.mean(), rows.mean()]) + 0.5
    np.testing.assert_allclose(seen, published_pixel(np.array([x, 0.57, z]), 448), atol=1.0)


def test_worlds_come_and_go_and_each_shows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, make = [], mujoco_camera._Stage.make

    def noted(stage: mujoco_camera._Stage, model: mujoco.MjModel, size: int) -> object:
        opened.append(size)
        return make(stage, model, size)

    monkeypatch.setattr(mujoco_camera._Stage, "make", noted)
    first, second = rope(64), grains(48, num_grains=9)
    frames = [first.render(), second.render()]
    for _ in range(3):
        passing = rope(96)
        passing.render()
        del passing
        gc.collect()
        third = rope(64)
        np.testing.assert_array_equal(third.render(), frames[0])
        third.close()
        np.testing.assert_array_equal(first.render(), frames[0])
        np.testing.assert_array_equal(second.render(), frames[1])
    first.close()
    np.testing.assert_array_equal(second.render(), frames[1])
    assert opened == [64, 48, *[96, 64] * 3]  # no frame had to be drawn again


@pytest.mark.parametrize("make", [rope, grains])
def test_a_lost_buffer_is_noticed_and_made_again(make: Callable[..., PushTableWorld]) -> None:
    from OpenGL import GL

    world = make(64)
    good = world.render()
    assert world._camera is not None
    lost = world._camera._camera._context
    GL.glDeleteFramebuffers(2, [lost.offFBO, lost.offFBO_r])
    np.testing.assert_array_equal(world.render(), good)
    assert world._camera._camera._context is not lost


def test_rendering_reads_only_the_state() -> None:
    world = rope(64)
    world.step(np.array([-1.5, 0.0, 1.0, -0.4]))
    snapshot, state = world.snapshot(), world.state
    frame = world.render()
    np.testing.assert_array_equal(world.snapshot().physics, snapshot.physics)
    other = rope(64)
    other.reset_to(state)
    np.testing.assert_array_equal(other.render(), frame)
    np.testing.assert_array_equal(world.render_states(np.stack([state, world.scene_state]))[0], frame)


@pytest.mark.parametrize("make", [rope, grains])
def test_shifts_that_are_seen(make: Callable[..., PushTableWorld]) -> None:
    plain = make(96)
    frames = {
        shift: make(96, shift=shift).render_states(plain.scene_state[None])[0]
        for shift in ("none", "light", "colours", "background", "camera", "agent_size")
    }
    np.testing.assert_array_equal(frames["none"], plain.render())
    np.testing.assert_array_equal(frames["agent_size"], frames["none"])  # the pusher is never in the picture
    table = frames["none"][48, 48]
    assert not np.array_equal(frames["background"][48, 48], table)
    assert not np.array_equal(frames["light"][48, 48], table)
    np.testing.assert_array_equal(frames["colours"][10], frames["none"][10])
    assert frames["colours"][..., 2].astype(int).max() > frames["none"][..., 2].max()
    assert (frames["camera"] != frames["none"]).any(axis=-1).mean() > 0.02
