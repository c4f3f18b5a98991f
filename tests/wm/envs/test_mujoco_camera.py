"""Cameras that live and die in any order, and what they do when OpenGL fails under them."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import mujoco
import numpy as np
import pytest

from wm.config.errors import UserError
from wm.config.worlds import PointMazeWorldConfig
from wm.envs import mujoco_camera
from wm.envs.gl import choose_gl
from wm.envs.point_maze import PointMazeWorld

KINDS = [
    PointMazeWorldConfig(frame_size=32),
    PointMazeWorldConfig(frame_size=48, layout="medium"),
    PointMazeWorldConfig(frame_size=32, shift="background"),
    PointMazeWorldConfig(frame_size=64, shift="camera"),
]


@pytest.fixture(autouse=True)
def some_gl() -> None:
    try:
        choose_gl()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def alone() -> list[np.ndarray]:
    """The frame of each kind of world, drawn when no other lives."""
    frames = []
    for config in KINDS:
        world = PointMazeWorld(config)
        frames.append(world.render())
        world.close()
    return frames


def test_the_frames_differ(alone: list[np.ndarray]) -> None:
    assert all(frame.min() < 100 < frame.max() for frame in alone)
    assert len({frame.tobytes() for frame in alone}) == len(KINDS)


def test_worlds_live_and_die_in_any_order(alone: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    living: list[tuple[int, PointMazeWorld]] = []
    for _ in range(60):
        if len(living) < 2 or (len(living) < 6 and rng.uniform() < 0.5):
            kind = int(rng.integers(len(KINDS)))
            living.append((kind, PointMazeWorld(KINDS[kind])))
        else:
            _, world = living.pop(int(rng.integers(len(living))))
            if rng.uniform() < 0.3:
                world.close()
            elif rng.uniform() < 0.5:
                world.itself = world  # pyright: ignore[reportAttributeAccessIssue] - only the collector finds it
            del world
            if rng.uniform() < 0.5:
                gc.collect()
        for kind, world in living:
            np.testing.assert_array_equal(world.render(), alone[kind])


def test_a_foreign_renderer_comes_and_goes(alone: list[np.ndarray]) -> None:
    """mujoco's own renderer has a context of its own, makes it current and frees things wherever it is."""
    world = PointMazeWorld(KINDS[0])
    np.testing.assert_array_equal(world.render(), alone[0])
    assert world._camera is not None
    context = world._camera._context
    for _ in range(3):
        model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
        data = mujoco.MjData(model)
        with mujoco.Renderer(model, 32, 32) as renderer:
            renderer.update_scene(data)
            renderer.render()
            np.testing.assert_array_equal(world.render(), alone[0])
            renderer.render()
        np.testing.assert_array_equal(world.render(), alone[0])
    assert world._camera._context is context  # it need not be saved by the guard


def test_a_foreign_renderer_dies_in_the_middle_of_a_picture(
    monkeypatch: pytest.MonkeyPatch, alone: list[np.ndarray]
) -> None:
    """The collector may run at any moment, and mujoco's own context leaves none current when it goes."""
    enter = mujoco_camera._Stage.enter
    known, new = PointMazeWorld(KINDS[0]), PointMazeWorld(KINDS[1])
    known.render()

    def and_lose_it(stage: mujoco_camera._Stage) -> None:
        enter(stage)
        mujoco.GLContext(8, 8).free()

    monkeypatch.setattr(mujoco_camera._Stage, "enter", and_lose_it)
    np.testing.assert_array_equal(new.render(), alone[1])
    np.testing.assert_array_equal(known.render(), alone[0])


def test_nothing_is_kept_of_the_dead() -> None:
    PointMazeWorld(KINDS[0]).render()
    gc.collect()
    stage = mujoco_camera._stage()
    stage.enter()
    before = len(stage._kept)
    for _ in range(5):
        PointMazeWorld(KINDS[0]).render()
    gc.collect()
    stage.enter()
    assert len(stage._kept) == before
    world = PointMazeWorld(KINDS[0])
    world.render()
    assert len(stage._kept) == before + 1
    world.close()  # at once
    assert len(stage._kept) == before


def test_a_lost_buffer_is_noticed_and_made_again(alone: list[np.ndarray]) -> None:
    from OpenGL import GL

    world = PointMazeWorld(KINDS[0])
    world.render()
    camera = world._camera
    assert camera is not None
    GL.glDeleteFramebuffers(2, [camera._context.offFBO, camera._context.offFBO_r])
    lost = camera._context
    np.testing.assert_array_equal(world.render(), alone[0])
    assert camera._context is not lost


def test_garbage_is_never_handed_out(monkeypatch: pytest.MonkeyPatch, alone: list[np.ndarray]) -> None:
    world = PointMazeWorld(KINDS[0])
    monkeypatch.setattr(mujoco, "mjr_readPixels", lambda *_: None)
    with pytest.raises(RuntimeError, match="no picture twice"):
        world.render()
    monkeypatch.undo()
    np.testing.assert_array_equal(world.render(), alone[0])


def test_another_thread_draws_the_same(alone: list[np.ndarray]) -> None:
    world, seen = PointMazeWorld(KINDS[1]), []
    np.testing.assert_array_equal(world.render(), alone[1])
    for _ in range(2):
        thread = threading.Thread(target=lambda: seen.append(world.render()))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(world.render(), alone[1])
    np.testing.assert_array_equal(seen, [alone[1]] * 2)


def test_a_fork_is_told_instead_of_hanging_and_the_process_ends_well() -> None:
    code = """
import os, threading
from wm.config.worlds import PointMazeWorldConfig
from wm.envs.point_maze import PointMazeWorld
worlds = [PointMazeWorld(PointMazeWorldConfig(frame_size=16)) for _ in range(3)]
for world in worlds:
    world.render()
thread = threading.Thread(target=PointMazeWorld(PointMazeWorldConfig(frame_size=16)).render)
thread.start()
thread.join()
child = os.fork()
if child == 0:
    try:
        worlds[0].render()
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(7)
    os._exit(8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
worlds[1].render()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "forked" in done.stdout
    assert done.stdout.endswith("\n7\n")


@pytest.mark.parametrize("current", [True, False])
def test_the_process_ends_quietly_when_another_library_ended_the_display(current: bool) -> None:
    """As robosuite's renderer does: exit handlers run in reverse order, so one that is registered later ends it earlier."""
    if choose_gl() != "egl":
        pytest.skip("only EGL has a display that all share")
    code = f"""
import atexit, threading
from wm.config.worlds import PointMazeWorldConfig
from wm.envs.point_maze import PointMazeWorld
worlds = [PointMazeWorld(PointMazeWorldConfig(frame_size=16)) for _ in range(2)]
worlds[0].render()
thread = threading.Thread(target=worlds[1].render)
thread.start()
thread.join()
from mujoco import egl
from mujoco.egl import egl_ext
if not {current}:
    egl_ext.eglReleaseThread()
atexit.register(egl_ext.eglTerminate, egl.create_initialized_egl_device_display())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
