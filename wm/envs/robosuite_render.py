# pyright: reportAttributeAccessIssue=false
"""Pictures of the robosuite models: what is drawn, and how finely. How they stay right: `mujoco_camera`."""

from __future__ import annotations

import numpy as np

from wm.envs.mujoco_camera import MujocoCamera
from wm.envs.physics import mujoco

COLLISION_GROUP = 0  # robosuite's geoms for contact, not drawn
MAX_GEOMS = 2000
SHADOW_SIZE = 256  # robosuite's light casts no shadow; its default of 4096 is paid for all the same


class Drawing:
    """Draws states of one model. Nothing is held on the GPU until the first frame.

    Args:
        model: its quality settings must have been set (`prepare_model`).
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._cameras: dict[tuple[int, int], MujocoCamera] = {}

    def draw(self, data: mujoco.MjData, camera: int, size: int) -> np.ndarray:
        """The frame of `data`, whose kinematics must be up to date, by a camera of the model.

        Returns: uint8 (size, size, 3), RGB, row 0 at the top.

        Raises:
            UserError: no OpenGL works here.
        """
        if (camera, size) not in self._cameras:
            self._cameras[camera, size] = self._camera(camera, size)
        return np.ascontiguousarray(self._cameras[camera, size].picture(data)[::-1])

    def close(self) -> None:
        """Free what is held on the GPU; a later `draw` takes it again."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras.clear()

    def _camera(self, number: int, size: int) -> MujocoCamera:
        camera = MujocoCamera(self._model, size, number, MAX_GEOMS)
        camera.option.geomgroup[COLLISION_GROUP] = 0
        camera.option.sitegroup[:] = 0
        camera.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        camera.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return camera


def prepare_model(model: mujoco.MjModel) -> None:
    """No multisampling and no shadow map: two to three times as many frames a second on a CPU."""
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = SHADOW_SIZE
    model.vis.global_.offwidth = model.vis.global_.offheight = 64
