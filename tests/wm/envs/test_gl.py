"""Which OpenGL is chosen, and what a machine without one is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wm.config.errors import UserError
from wm.envs import gl
from wm.envs.gl import choose_gl


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing said, on Linux. What choose_gl sets is taken back."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")


def have(monkeypatch: pytest.MonkeyPatch, **faults: str | None) -> None:
    for name, fault in faults.items():
        monkeypatch.setitem(gl._FAULT_OF, name, lambda fault=fault: fault)


def refusal() -> str:
    with pytest.raises(UserError) as caught:
        choose_gl()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run_bare(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """In a process with no display and no OpenGL settings but these."""
    hidden = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run([sys.executable, "-c", code], env=kept | env, capture_output=True, text=True, timeout=120)


def test_egl_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, egl=None, osmesa=None)
    assert choose_gl() == os.environ["MUJOCO_GL"] == "egl"
    assert choose_gl() == "egl"


def test_osmesa_steps_in_where_egl_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, egl="libEGL is installed, but none of its 0 devices opens", osmesa=None)
    assert choose_gl() == os.environ["MUJOCO_GL"] == "osmesa"


def test_no_library_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "_load", lambda name, usual: None)
    said = refusal()
    assert "libEGL is not installed; libOSMesa is not installed; apt-get install libegl1" in said
    assert "MUJOCO_GL" not in os.environ


def test_what_is_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, egl=None, osmesa="libOSMesa is not installed")
    monkeypatch.setenv("MUJOCO_GL", "OSMesa")
    assert refusal() == "MUJOCO_GL=osmesa: libOSMesa is not installed; MUJOCO_GL=egl would work"
    have(monkeypatch, egl="no driver")
    assert "apt-get install" in refusal()


def test_switched_off_and_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    assert "switched off" in refusal()
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    assert "MUJOCO_GL=vulkan: expected egl or osmesa" in refusal()


def test_a_display_or_another_system_is_mujoco_s_own_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, egl="no", osmesa="no")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert choose_gl() == "glfw"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose_gl() == "native"
    assert "MUJOCO_GL" not in os.environ


def test_pyopengl_is_bound_to_one_library(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, egl=None, osmesa=None)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert choose_gl() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert "PYOPENGL_PLATFORM=osmesa" in refusal()


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if gl._egl_fault() is not None:
        pytest.skip("no EGL here")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    for asked in ("99", "-1", "first"):
        monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", asked)
        assert f"MUJOCO_EGL_DEVICE_ID={asked} is none of" in refusal()


def test_a_library_without_a_driver_is_no_opengl() -> None:
    """The real library, kept from finding its drivers."""
    if gl._load("EGL", "libEGL.so.1") is None:
        pytest.skip("no libEGL here")
    code = "from wm.envs.gl import _egl_fault; print(_egl_fault())"
    for driver in ("__EGL_VENDOR_LIBRARY_DIRS", "LIBGL_DRIVERS_PATH"):  # glvnd's, and Mesa's below it
        if driver == "LIBGL_DRIVERS_PATH" and Path("/dev/nvidiactl").exists():
            continue  # has a driver that is not Mesa's
        done = run_bare(code, **{driver: "/nowhere"})
        assert done.stdout.startswith("libEGL "), done.stderr
    assert run_bare(code).stdout == f"{gl._egl_fault()}\n"


def test_a_context_that_cannot_be_made_is_one_line() -> None:
    code = """
from wm.config.errors import UserError
from wm.config.worlds import PointMazeWorldConfig
from wm.envs.point_maze import PointMazeWorld
world = PointMazeWorld(PointMazeWorldConfig(frame_size=16))
world.step([0.1, 0.2])  # needs no OpenGL
try:
    world.render()
except UserError as error:
    print(error)
"""
    done = run_bare(code, MUJOCO_GL="glfw")
    assert done.stdout.startswith("MUJOCO_GL=glfw: no OpenGL context can be made: "), done.stderr
    assert done.stdout.count("\n") == 1
