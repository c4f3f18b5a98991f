"""Limits that raw actions pass through after planning and before anything moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from wm.config.errors import UserError, nearest
from wm.config.limits import DeltaLimitConfig, PositionLimitConfig, VelocityLimitConfig

_CHANGED = 1e-9  # of an action's entry; less is rounding


@runtime_checkable
class ActionLimit(Protocol):
    """A filter of one raw env action. A control barrier function has this shape: the nearest action that keeps a state safe."""

    def __call__(self, action: np.ndarray, previous: np.ndarray | None, proprio: np.ndarray) -> np.ndarray:
        """The action (A,) that may be executed instead.

        Args:
            previous: the action executed before, or None at the start.
            proprio: raw proprioception (Dp,), seen now.
        """
        ...


class ActionLimits:
    """Named limits, applied one after another, and how often each of them changed an action."""

    def __init__(self, limits: Mapping[str, ActionLimit]) -> None:
        self._limits = dict(limits)
        self.clamped = dict.fromkeys(self._limits, 0)

    def __call__(self, action: np.ndarray, previous: np.ndarray | None, proprio: np.ndarray) -> np.ndarray:
        """Raises ValueError where a limit changes the action's shape or returns NaN."""
        for name, limit in self._limits.items():
            allowed = np.asarray(limit(action, previous, proprio), dtype=np.float64)
            if allowed.shape != action.shape or not np.isfinite(allowed).all():
                raise ValueError(f"plan.limits.{name} returned {allowed!r} for an action of shape {action.shape}")
            self.clamped[name] += int(np.abs(allowed - action).max(initial=0.0) > _CHANGED)
            action = allowed
        return action


class VelocityLimit:
    """|a| over some entries is at most `max_norm`; the direction stays."""

    def __init__(self, config: VelocityLimitConfig, action_names: Sequence[str], path: str) -> None:
        self._entries = _entries(config.actions, action_names, f"{path}.actions")
        self._max = config.max_norm

    def __call__(self, action: np.ndarray, previous: np.ndarray | None, proprio: np.ndarray) -> np.ndarray:
        allowed = action.copy()
        norm = float(np.linalg.norm(action[self._entries]))
        if norm > self._max:
            allowed[self._entries] *= self._max / norm
        return allowed


class DeltaLimit:
    """Each entry differs from the one executed before by at most `max_change`; the first action is free."""

    def __init__(self, config: DeltaLimitConfig, action_names: Sequence[str], path: str) -> None:
        self._entries = _entries(config.actions, action_names, f"{path}.actions")
        self._max = config.max_change

    def __call__(self, action: np.ndarray, previous: np.ndarray | None, proprio: np.ndarray) -> np.ndarray:
        if previous is None:
            return action
        allowed, of = action.copy(), self._entries
        allowed[of] = np.clip(action[of], previous[of] - self._max, previous[of] + self._max)
        return allowed


class PositionLimit:
    """position + scale * action stays in [low, high], position read from proprioception. From outside it may only come nearer."""

    def __init__(
        self, config: PositionLimitConfig, action_names: Sequence[str], proprio_names: Sequence[str], path: str
    ) -> None:
        self._entries = _entries(config.actions, action_names, f"{path}.actions")
        self._positions = _entries(config.positions, proprio_names, f"{path}.positions")
        self._low, self._high = np.asarray(config.low), np.asarray(config.high)
        self._scale = config.scale

    def __call__(self, action: np.ndarray, previous: np.ndarray | None, proprio: np.ndarray) -> np.ndarray:
        allowed, here = action.copy(), proprio[self._positions]
        # Where it is outside, staying put is always allowed.
        low, high = np.minimum(self._low, here), np.maximum(self._high, here)
        allowed[self._entries] = (np.clip(here + self._scale * action[self._entries], low, high) - here) / self._scale
        return allowed


def _entries(wanted: Sequence[str], names: Sequence[str], path: str) -> list[int]:
    """Their places; none named: all."""
    for name in wanted:
        if name not in names:
            raise UserError(f"{path}: no '{name}' here; there are {', '.join(names)}.{nearest(name, names)}")
    return [names.index(name) for name in wanted] or list(range(len(names)))
