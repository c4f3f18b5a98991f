"""Pictures of a table world, without a display."""

from __future__ import annotations

import atexit
import functools
import weakref
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from wm.envs.physics import mujoco
from wm.envs.push_scene import OBJECT_GROUP, UNSEEN_GROUP

_open_cameras: weakref.WeakSet[TableCamera] = weakref.WeakSet()
LEAST_BACKGROUND = 0.3  # share of the pixels that must be as in a picture of the empty table


class TableCamera:
    """Draws poses of one model (MjModel). It has data of its own: drawing changes nothing in the simulation.

    A frame is believed only if much of it is exactly as in a frame of the empty table, taken when the context was new:
    a context that has lost its buffers gives uninitialised memory and says nothing. Such a frame is drawn again in a
    new context.
    """

    def __init__(self, model: Any, frame_size: int) -> None:
        self._model, self._size = model, frame_size
        model.vis.global_.offwidth = model.vis.global_.offheight = frame_size
        self._data = mujoco.MjData(model)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 10)
        self._view = mujoco.MjvCamera()
        self._view.type, self._view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        self._rectangle = mujoco.MjrRect(0, 0, frame_size, frame_size)
        self._context: Any = None  # of OpenGL
        self._renderer: Any = None
        self._empty: np.ndarray | None = None

    def draw(self, pose: Float[np.ndarray, "q"]) -> UInt8[np.ndarray, "h w 3"]:
        """The frame of a pose (qpos of the model).

        Raises:
            RuntimeError: OpenGL gives garbage in a new context, too, or is switched off.
        """
        for _ in range(2):
            if self._context is None:
                self._open()
            frame = self._draw(pose, objects=True)
            if self._empty is not None and (frame == self._empty).all(axis=-1).mean() >= LEAST_BACKGROUND:
                return frame
            self.close()
        raise RuntimeError("OpenGL gives garbage instead of the table; another MUJOCO_GL (egl, osmesa) may do better")

    def close(self) -> None:
        """Free the context; `draw` makes another."""
        if self._context is None:
            return
        self._context.make_current()  # its buffers have numbers that mean others in another context
        self._renderer.free()
        self._context.free()
        self._context = self._renderer = self._empty = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> None:
        if not hasattr(mujoco, "GLContext"):
            raise RuntimeError("MUJOCO_GL says that nothing is drawn here; say egl or osmesa")
        self._context = mujoco.GLContext(self._size, self._size)
        _close_at_exit()
        _open_cameras.add(self)
        self._context.make_current()
        self._renderer = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._renderer)
        self._empty = self._draw(self._model.qpos0, objects=False)

    def _draw(self, pose: np.ndarray, objects: bool) -> np.ndarray:
        self._context.make_current()
        self._data.qpos[:] = pose
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        options = mujoco.MjvOption()
        options.geomgroup[OBJECT_GROUP], options.geomgroup[UNSEEN_GROUP] = objects, 0
        mujoco.mjv_updateScene(
            self._model, self._data, options, None, self._view, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._renderer)
        upside_down = np.zeros((self._size, self._size, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(upside_down, None, self._rectangle, self._renderer)
        return upside_down[::-1].copy()


@functools.cache
def _close_at_exit() -> None:
    """Free all contexts while there is still an OpenGL: called after it was started, so run before it ends."""
    atexit.register(lambda: [camera.close() for camera in list(_open_cameras)])
