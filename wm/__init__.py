"""DINO world models: train any variant, plan with it, compare.

    import wm
    model = wm.load("wm_home/runs/4f1d2c3b5a69")      # a run or a checkpoint
    z = model.encode(obs, actions)                     # latent of frames and actions
    future = model.rollout(obs, actions)               # imagined latents
    plan = wm.plan(model, start_frame, goal_frame)     # raw env actions

Names are imported on first use: `import wm` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm.build import load, plan
    from wm.loaded import LoadedModel
    from wm.types import Observation

__all__ = ["LoadedModel", "Observation", "load", "plan"]

_HOMES = {"load": "wm.build", "plan": "wm.build", "LoadedModel": "wm.loaded", "Observation": "wm.types"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wm' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
