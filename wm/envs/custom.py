"""A world from outside, tried once before anything is built on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm.config.errors import UserError
from wm.config.target import call_target
from wm.config.worlds import CustomWorldConfig
from wm.contracts import Policy, World

_MEMBERS = (
    *("name", "action_names", "state_names", "proprio_names", "frame_size", "action_low", "action_high"),
    *("layout", "state", "proprio", "set_layout", "reset_to", "step", "render", "sample_layout", "sample_problem"),
    *("success", "distance", "snapshot", "restore", "close"),
)


def custom_world(config: CustomWorldConfig) -> World:
    """`target(frame_size=..., **config)`. Raises UserError when it cannot be made, or does not do what `wm.contracts.World` says."""
    if "frame_size" in config.config:
        raise UserError("world.config.frame_size: the size of frames is world.frame_size")
    world = call_target(config.target, "world.target", {"frame_size": config.frame_size, **config.config})
    missing = [name for name in _MEMBERS if not hasattr(world, name)]
    if missing:
        raise UserError(
            f"world.target: {config.target} is no world: it has no {', '.join(missing)} (wm.contracts.World)"
        )
    try:
        fault = _fault(world, config.frame_size)
    except Exception as error:  # code from outside may fail in any way
        text = str(error).strip().splitlines()
        fault = f"trying it failed: {type(error).__name__}{f': {text[0][:160]}' if text else ''}"
    if fault is not None:
        raise UserError(f"world.target: {config.target} breaks the contract of wm.contracts.World: {fault}")
    return world


def custom_expert(target: str) -> Policy:
    """`target()`. Raises UserError when it cannot be made or is no policy."""
    expert = call_target(target, "world.expert", {})
    missing = [name for name in ("reset", "act") if not hasattr(expert, name)]
    if missing:
        raise UserError(f"world.expert: {target} is no policy: it has no {', '.join(missing)} (wm.contracts.Policy)")
    return expert


def _fault(world: World, frame_size: int) -> str | None:
    """What is wrong with it, by one episode of one step."""
    if world.frame_size != frame_size:
        return f"frame_size must be the {frame_size} it was made with, got {world.frame_size!r}"
    actions, states, proprio = (len(each) for each in (world.action_names, world.state_names, world.proprio_names))
    rng = np.random.default_rng(0)
    world.set_layout(world.sample_layout(rng))
    start, goal = world.sample_problem(rng)
    fault = _vector_fault("sample_problem's start", start, states) or _vector_fault("its goal", goal, states)
    if fault is not None:
        return fault
    world.reset_to(start)
    zero = np.zeros(actions)
    for what, value, size in (
        ("action_low", world.action_low, actions),
        ("action_high", world.action_high, actions),
        ("state", world.state, states),
        ("proprio", world.proprio, proprio),
        ("what step returns", world.step(np.clip(zero, world.action_low, world.action_high)), states),
    ):
        fault = _vector_fault(what, value, size)
        if fault is not None:
            return fault
    if not (world.action_low < world.action_high).all():
        return "action_low must be below action_high in every component"
    try:
        world.step(zero * np.nan)
        return "step must raise ValueError for NaN"
    except ValueError:
        pass
    frame, shape = world.render(), (frame_size, frame_size, 3)
    if not isinstance(frame, np.ndarray) or frame.shape != shape or frame.dtype != np.uint8:
        return f"render must give uint8 {shape}, got {_shown(frame)}"
    if world.success(goal, goal) is not True or world.distance(goal, goal) != 0:
        return "a goal must be a success of distance 0 from itself"
    world.restore(world.snapshot())
    return None


def _vector_fault(what: str, value: Any, size: int) -> str | None:
    if isinstance(value, np.ndarray) and value.shape == (size,) and value.dtype == np.float64:
        return None if np.isfinite(value).all() else f"{what} must be finite, got {value.tolist()}"
    return f"{what} must be float64 ({size},), as its names say, got {_shown(value)}"


def _shown(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
