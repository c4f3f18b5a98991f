# pyright: reportAttributeAccessIssue=false
"""Named changes of what the robosuite worlds look like; the physics is the same."""

from __future__ import annotations

import numpy as np

from wm.envs.physics import mujoco

LIGHT_COLOUR = (1.0, 0.75, 0.45)  # evening: warm and dimmer
LIGHT_GAIN = 0.6
CAMERA_MOVE = (0.05, 0.12, -0.05)  # metres
CAMERA_TURN = 0.12  # radians about the world's vertical
ITEM_COLOURS = ((0.15, 0.35, 0.85, 1.0), (0.85, 0.75, 0.1, 1.0))  # blue, yellow
BACKGROUND = {"floor": (0.25, 0.32, 0.25, 1.0), "wall": (0.55, 0.62, 0.75, 1.0), "table": (0.45, 0.3, 0.2, 1.0)}


def apply_shift(model: mujoco.MjModel, shift: str) -> None:
    """Change a model in place.

    Args:
        shift: `none`; `light` (warm, dimmer), `colours` (the objects), `background` (floor, walls, table or bins) or
            `camera` (every fixed camera moved by 14 cm and turned by 7 degrees; not the one on the hand).
    """
    match shift:
        case "none":
            pass
        case "light":
            colour = LIGHT_GAIN * np.array(LIGHT_COLOUR)
            model.light_diffuse[:] = model.light_diffuse * colour
            model.vis.headlight.diffuse[:] = model.vis.headlight.diffuse * colour
            model.vis.headlight.ambient[:] = model.vis.headlight.ambient * colour
        case "colours":
            _colour_items(model)
        case "background":
            _colour_background(model)
        case "camera":
            _move_cameras(model)
        case _:
            raise ValueError(f"shift is '{shift}', expected none, light, colours, background or camera")


def _colour_items(model: mujoco.MjModel) -> None:
    """Bodies that hang on a free joint, each in a plain colour."""
    free = [int(model.jnt_bodyid[j]) for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE]
    for order, root in enumerate(free):
        bodies = {root}
        for body in range(root + 1, model.nbody):
            if model.body_parentid[body] in bodies:
                bodies.add(body)
        for geom in range(model.ngeom):
            if int(model.geom_bodyid[geom]) in bodies:
                model.geom_matid[geom] = -1
                model.geom_rgba[geom] = ITEM_COLOURS[order % len(ITEM_COLOURS)]


def _colour_background(model: mujoco.MjModel) -> None:
    for geom in range(model.ngeom):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, geom) or ""
        body = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, int(model.geom_bodyid[geom])) or ""
        part = "table" if body in ("table", "bin1", "bin2") else name.split("_")[0]
        if part in BACKGROUND:
            model.geom_matid[geom] = -1
            model.geom_rgba[geom] = BACKGROUND[part]


def _move_cameras(model: mujoco.MjModel) -> None:
    turn = np.array([np.cos(CAMERA_TURN / 2), 0.0, 0.0, np.sin(CAMERA_TURN / 2)])
    for camera in range(model.ncam):
        if model.cam_bodyid[camera] == 0:
            turned = np.zeros(4)
            mujoco.mju_mulQuat(turned, turn, model.cam_quat[camera])
            model.cam_quat[camera] = turned
            model.cam_pos[camera] += CAMERA_MOVE
