# pyright: reportAttributeAccessIssue=false
"""Pictures of MuJoCo models that stay right however many are drawn in one process, and in whatever order they are freed.

MuJoCo's GL objects have numbers that are unique within one GL context only. Freeing a picture's objects while another
context is current frees the other's: its next frames are uninitialised memory, without an error (robosuite 1.5.2,
`MjRenderContext.__del__`; `mujoco.Renderer.close` too). Here all pictures of a process live in one GL context, which is
made current before anything is made, drawn or freed.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

import mujoco
import numpy as np

from wm.config.errors import UserError

COLLISION_GROUP = 0  # robosuite's geoms for contact, not drawn
MAX_GEOMS = 2000
SHADOW_SIZE = 256  # robosuite's light casts no shadow; its default of 4096 is paid for all the same

_contexts: dict[int, Any] = {}  # process id -> GL context; one that came through a fork is of no use


def make_current() -> None:
    """Make this process's GL context current, and make it first if need be.

    Raises:
        UserError: mujoco was imported with MUJOCO_GL off, or the driver gives no context.
    """
    context = _contexts.get(os.getpid())
    if context is None:
        try:
            from mujoco.gl_context import GLContext

            context = GLContext(1, 1)
        except (ImportError, RuntimeError, AttributeError) as error:
            choice = os.environ.get("MUJOCO_GL", "")
            raise UserError(f"no frames can be drawn with MUJOCO_GL={choice!r}: {error}") from error
        _contexts[os.getpid()] = context
        atexit.register(_free_context)  # runs before the driver is shut down, which the first context registered
    context.make_current()


def _free_context() -> None:
    context = _contexts.pop(os.getpid(), None)
    if context is not None:
        context.free()


class Drawing:
    """Draws states of one model. Nothing is held until the first frame.

    Args:
        model: its quality settings must have been set (`prepare_model`).
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._gl: tuple[mujoco.MjrContext, mujoco.MjvScene] | None = None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[COLLISION_GROUP] = 0
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._pid = os.getpid()

    def draw(self, data: mujoco.MjData, camera: int, size: int) -> np.ndarray:
        """The frame of `data`, whose kinematics must be up to date, by a camera of the model.

        Returns: uint8 (size, size, 3), RGB, row 0 at the top.
        """
        make_current()
        if self._gl is None or self._pid != os.getpid():
            self._gl, self._pid = self._allocate(), os.getpid()
        context, scene = self._gl
        if size > min(context.offWidth, context.offHeight):
            mujoco.mjr_resizeOffscreen(size, size, context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        self._camera.fixedcamid = camera
        catalogue = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, catalogue, scene)
        frame = np.zeros((size, size, 3), dtype=np.uint8)
        viewport = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(viewport, scene, context)
        mujoco.mjr_readPixels(frame, None, viewport, context)
        return np.ascontiguousarray(frame[::-1])

    def close(self) -> None:
        """Free the GL objects; a later `draw` makes them again."""
        gl, self._gl = self._gl, None
        if gl is not None and self._pid == os.getpid() and self._pid in _contexts:
            make_current()
            gl[0].free()

    def _allocate(self) -> tuple[mujoco.MjrContext, mujoco.MjvScene]:
        context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        scene = mujoco.MjvScene(self._model, MAX_GEOMS)
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return context, scene

    def __del__(self) -> None:
        self.close()


def prepare_model(model: mujoco.MjModel) -> None:
    """No multisampling and no shadow map: two to three times as many frames a second on a CPU."""
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = SHADOW_SIZE
    model.vis.global_.offwidth = model.vis.global_.offheight = 64
