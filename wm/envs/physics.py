"""MuJoCo, imported after its OpenGL is chosen: it looks for one while it is imported, and for a display where none is named."""

from __future__ import annotations

from wm.envs.gl import choose_gl

choose_gl()

import mujoco  # noqa: E402

__all__ = ["mujoco"]
