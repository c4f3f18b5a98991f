"""Dynamics that are cheaper in a search's early iterations."""

from __future__ import annotations

from wm.contracts import AnytimeDynamics, Dynamics


def at_iteration(dynamics: Dynamics, number: int) -> Dynamics:
    """What iteration `number` (from 0) of a search rolls out; the dynamics themselves, where they know no cheaper way."""
    return dynamics.at_iteration(number) if isinstance(dynamics, AnytimeDynamics) else dynamics
