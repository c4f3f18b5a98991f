"""MuJoCo, imported after its OpenGL is chosen: it looks for one while it is imported, and for a display where none is named."""

from __future__ import annotations

import importlib
from typing import Any

from wm.envs.gl import choose_gl

choose_gl()

mujoco: Any = importlib.import_module("mujoco")  # compiled, without types
