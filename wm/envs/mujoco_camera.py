"""Pictures of MuJoCo models without a display, guarded against garbage."""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from wm.config.errors import UserError
from wm.envs.gl import choose_gl
from wm.envs.physics import mujoco

_STAGE_SIZE = 64  # pixels; of OSMesa's own buffer, which nothing is drawn on
_DISPLAY_ENDED = (0x3001, 0x3008)  # EGL_NOT_INITIALIZED; EGL_BAD_DISPLAY, where the context was not current


class View(NamedTuple):
    """Where a free camera stands.

    Args:
        look_at: world coordinates.
        distance: from there, world units.
        azimuth, elevation: degrees; elevation -90 looks straight down.
    """

    look_at: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


class MujocoCamera:
    """A camera with an offscreen buffer of its own.

    All cameras of a thread share one OpenGL context, which is made current before every call. What a camera holds on the GPU is freed
    only there, at a moment when nobody draws, so that no garbage collection can free another renderer's objects of the same number.
    Every buffer is filled with a known pattern before it is read into: a read that fails leaves it there, and is repeated once with
    everything built anew.

    Args:
        model: what its textures and meshes are uploaded from; `picture` also takes data of another model with the same ones.
        size: side of the square picture.
        view: where it stands, or the number of a camera of the model.
        max_geoms: most geoms of any model drawn.

    Attributes:
        option, scene: MuJoCo's, to say what is drawn.
    """

    def __init__(self, model: mujoco.MjModel, size: int, view: View | int, max_geoms: int = 1000) -> None:
        self._model, self._size, self.view = model, size, view
        self.scene = mujoco.MjvScene(model, max_geoms)
        self.option = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._unread = (np.arange(size * size * 3) * 89 % 251).astype(np.uint8).reshape(size, size, 3)
        self._stage: _Stage | None = None
        self._context: Any = None
        self._finalizer: weakref.finalize | None = None

    def picture(self, data: mujoco.MjData) -> np.ndarray:
        """uint8 (size, size, 3), RGB, row 0 at the bottom as OpenGL has it.

        Positions and lights of `data` must be up to date (mj_kinematics, mj_camlight).

        Raises:
            UserError: no OpenGL works here.
            RuntimeError: the renderer gave garbage twice.
        """
        for _ in range(2):
            picture = self._draw(data)
            if picture is not None:
                return picture
            self.close()
        raise RuntimeError("the renderer gave no picture twice; its OpenGL context is broken")

    def close(self) -> None:
        """Give back what it holds on the GPU; a later `picture` takes it again."""
        if self._finalizer is not None:
            self._finalizer()
        if self._stage is not None and self._stage is getattr(_thread, "stage", None) and _pid == os.getpid():
            self._stage.enter()
        self._stage = self._context = self._finalizer = None

    def _draw(self, data: mujoco.MjData) -> np.ndarray | None:
        """The picture, or None if what was read cannot be it."""
        stage = _stage()
        stage.enter()
        if stage is not self._stage:  # first use, or another thread than last time
            self.close()
            self._stage, self._context = stage, stage.make(self._model, self._size)
            self._finalizer = weakref.finalize(self, stage.discard, self._context)
            self._finalizer.atexit = False
        camera = mujoco.MjvCamera()
        if isinstance(self.view, View):
            camera.lookat[:], camera.distance = self.view.look_at, self.view.distance
            camera.azimuth, camera.elevation = self.view.azimuth, self.view.elevation
        else:
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, self.view
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(data.model, data, self.option, None, camera, everything, self.scene)
        mujoco.mjr_getError()  # whatever happened before
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        mujoco.mjr_render(self._viewport, self.scene, self._context)
        picture = self._unread.copy()
        mujoco.mjr_readPixels(picture, None, self._viewport, self._context)
        if mujoco.mjr_getError() or np.array_equal(picture, self._unread):
            return None
        return picture


class _Stage:
    """The OpenGL context of one thread, and the MuJoCo contexts in it."""

    def __init__(self) -> None:
        name = choose_gl()
        try:
            # By name: mujoco.GLContext is whatever MUJOCO_GL said when mujoco was first imported.
            if name == "egl":
                from mujoco.egl import GLContext
            elif name == "osmesa":
                from mujoco.osmesa import GLContext
            else:
                from mujoco import GLContext
            self._gl = GLContext(_STAGE_SIZE, _STAGE_SIZE)
            self._gl.make_current()
        except Exception as error:  # each library fails in a way of its own
            raise _no_context(name, error) from error
        self._name = name
        # MjrContext frees its GPU objects when Python lets go of it, in whatever context is then current: each is kept until
        # it is freed here.
        self._kept: list[Any] = []
        self._discarded: list[Any] = []

    def enter(self) -> None:
        """Make it current and free what was discarded."""
        self._gl.make_current()
        while self._discarded:
            context = self._discarded.pop()
            context.free()
            self._kept = [kept for kept in self._kept if kept is not context]

    def make(self, model: mujoco.MjModel, size: int) -> Any:
        """A MuJoCo context with an offscreen buffer of at least `size`."""
        try:
            self._gl.make_current()  # at the last moment: a foreign renderer that is collected leaves no context current
            context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            if size > min(context.offWidth, context.offHeight):
                mujoco.mjr_resizeOffscreen(size, size, context)
        except mujoco.FatalError as error:  # glfw without a display fails no earlier
            raise _no_context(self._name, error) from error
        self._kept.append(context)
        return context

    def discard(self, context: Any) -> None:
        """To be freed at the next `enter`; may be called at any moment, from the garbage collector too."""
        self._discarded.append(context)

    def leave(self) -> None:
        """Free everything, at the end of the process; another thread's objects go with its context."""
        try:
            if self is getattr(_thread, "stage", None):
                self._discarded = list(self._kept)
                self.enter()
            self._gl.free()
        except Exception as error:
            # A library that drew later (robosuite's own renderer) ends the display, which all share, in an exit handler of its
            # own, and that one runs first. What was on the display is gone with it; mujoco's object would try again.
            if getattr(error, "err", None) not in _DISPLAY_ENDED:
                raise
            self._gl._context = None


def _no_context(name: str, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"MUJOCO_GL={name}: no OpenGL context can be made: {reason}")


_thread = threading.local()
_pid = 0  # of the process that drew first
_all: list[_Stage] = []  # those of dead threads too: nothing else frees what they kept


def _stage() -> _Stage:
    """This thread's. Raises RuntimeError in a fork of a process that has drawn: its OpenGL would hang."""
    global _pid
    if _all and _pid != os.getpid():
        raise RuntimeError(f"process {_pid} drew with OpenGL and was then forked; start processes by spawn instead")
    if not hasattr(_thread, "stage"):
        _thread.stage = _Stage()
        if not _all:
            _pid = os.getpid()
            atexit.register(_leave)  # registered after mujoco's own, so run before that one closes the display
        _all.append(_thread.stage)
    return _thread.stage


def _leave() -> None:
    if _pid == os.getpid():
        for stage in _all:
            stage.leave()
