"""Which OpenGL draws the pictures of MuJoCo worlds where there is no display."""

from __future__ import annotations

import ctypes.util
import os

from wm.config.errors import UserError

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def choose_gl() -> str:
    """Set MUJOCO_GL unless it is set: egl, else osmesa. Call it before mujoco is imported; returns the choice.

    Raises UserError when neither library is here, or MUJOCO_GL names one that is not.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    found = [name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)]
    if wanted in _LIBRARIES and wanted not in found:
        raise UserError(f"MUJOCO_GL={wanted}: lib{_LIBRARIES[wanted]} is not installed; {_ways_out(found)}")
    if wanted:
        return wanted
    if not found:
        raise UserError(
            f"this world is drawn with OpenGL, and neither libEGL nor libOSMesa is here; {_ways_out(found)}"
        )
    os.environ["MUJOCO_GL"] = found[0]
    return found[0]


def _ways_out(found: list[str]) -> str:
    if found:
        return f"MUJOCO_GL={found[0]} would work"
    return "apt-get install libegl1 libgl1-mesa-dri (or libosmesa6, which is slower)"
