"""Pictures of a table world: what is drawn, and of which pose. How they stay right: `mujoco_camera`."""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from wm.envs.mujoco_camera import MujocoCamera
from wm.envs.physics import mujoco
from wm.envs.push_scene import UNSEEN_GROUP

_VIEW = 0  # the only camera of the model


class TableCamera:
    """Draws poses of one model. It has data of its own: drawing changes nothing in the simulation."""

    def __init__(self, model: mujoco.MjModel, frame_size: int) -> None:
        model.vis.global_.offwidth = model.vis.global_.offheight = frame_size
        self._model = model
        self._data = mujoco.MjData(model)
        self._camera = MujocoCamera(model, frame_size, _VIEW, model.ngeom)
        self._camera.option.geomgroup[UNSEEN_GROUP] = 0

    def draw(self, pose: Float[np.ndarray, "q"]) -> UInt8[np.ndarray, "h w 3"]:
        """The frame of a pose (qpos of the model), RGB, row 0 at the top.

        Raises:
            UserError: no OpenGL works here.
        """
        self._data.qpos[:] = pose
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        return np.ascontiguousarray(self._camera.picture(self._data)[::-1])

    def close(self) -> None:
        """Free what is held on the GPU; a later `draw` takes it again."""
        self._camera.close()
