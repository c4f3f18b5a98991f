"""Where the poses of the objects are in robosuite's observation `object`, which is not the same in all its versions.

    can, square     1.2 to 1.4: pose 7, then the same seen from the hand 7;  1.5: from the hand 7, then pose 7
    lift, stack     poses first in all of them

Source: robosuite 1.4.1 and 1.5.2, `_get_observations` of each task, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wm.config.errors import UserError

ITEMS = {"Lift": ("cube",), "PickPlaceCan": ("can",), "NutAssemblySquare": ("nut",), "Stack": ("cube_a", "cube_b")}
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
MOVED = ("PickPlaceCan", "NutAssemblySquare")  # whose poses are behind since 1.5
OBJECT_KEY, VERSION = "object", "env_version"
NEAR = 1e-3  # metres: observations may be a substep late


def pose_names(env: str) -> list[str]:
    """Of the columns that hold the poses of a task's objects; none for other tasks."""
    return [f"{item}_{part}" for item in ITEMS.get(env, ()) for part in POSE]


def pose_column(demo: Any, env: str, info: Mapping[str, Any]) -> int | None:
    """The column of obs/object with which the poses begin: told by the simulator's states, else by robosuite's version.

    Args:
        demo: a demonstration's group.
        info: of the file, as `env_info` has it.

    Returns: None where nothing tells.
    """
    objects = np.asarray(demo["obs"][OBJECT_KEY][:1], np.float64).reshape(-1)
    if env not in MOVED or len(objects) < 2 * len(POSE):
        return 0
    if "states" in demo:
        places = np.lib.stride_tricks.sliding_window_view(np.asarray(demo["states"][0], np.float64), 3)
        for column in (0, len(POSE)):
            if (np.abs(places - objects[column : column + 3]).max(axis=1) < NEAR).any():
                return column
    version = str(info.get(VERSION, "")).split(".")
    if len(version) > 1 and version[1].isdecimal():
        return len(POSE) if int(version[1]) >= 5 else 0
    return None


def pose_columns(demo: Any, env: str, info: Mapping[str, Any], where: str) -> str:
    """Which columns of obs/object are the poses, as a key has it: `[7:14]`; nothing for other tasks.

    Raises:
        UserError: nothing tells.
    """
    size = len(pose_names(env))
    if not size:
        return ""
    first = pose_column(demo, env, info)
    if first is None:
        raise UserError(
            f"{where}: nothing says whether obs/{OBJECT_KEY} begins with the pose (robosuite 1.4) or ends with it (1.5): "
            f"give state_keys, with {OBJECT_KEY}[:7] or {OBJECT_KEY}[7:14]"
        )
    return f"[{first}:{first + size}]"
