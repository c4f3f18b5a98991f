"""MuJoCo, imported after its OpenGL is chosen: it loads what MUJOCO_GL names while it is imported, and fails there."""

from __future__ import annotations

import contextlib
import os

from wm.config.errors import UserError
from wm.envs.gl import choose_gl

# What is named must work. With nothing named a machine without OpenGL can still simulate: its first picture says what is missing.
with contextlib.suppress(*() if os.environ.get("MUJOCO_GL") else (UserError,)):
    choose_gl()

import mujoco

__all__ = ["mujoco"]
