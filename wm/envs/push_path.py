"""One push over the table: where the pusher goes, and where on its way it first comes near anything."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

REACH = 4.0  # units; starts and ends are clipped to [-4, 4]^2, the original's range of actions
SPEED = 1.5  # units per second of simulated time
BRAKING = 8.0  # units/s^2 at the end of a push, so that what is pushed does not slide on

# The original's random pushes.
NUM_TRIES = 1000
NEAR_MEDIAN = 2.0  # units; a particle further from the others' median is not aimed at
START_CLEARANCE = 0.2  # of a start from every particle
END_RANGE = 1.5  # of both coordinates of an end
NO_PUSH = np.array([3.0, 3.0, 3.0, 3.0])  # down and up in a corner of the table


class Pusher(NamedTuple):
    """The foot of the pusher, seen from above.

    Args:
        half_width: across the push, units.
        half_depth: along the push.
        round: a vertical stick (its radius is both) rather than a board.
    """

    half_width: float
    half_depth: float
    round: bool


class Push(NamedTuple):
    """A straight push in the table frame.

    Args:
        start, end: (2,) units.
        direction: (2,) unit vector from start to end; (0, 1) where they are the same, as in the original.
        length: units.
    """

    start: np.ndarray
    end: np.ndarray
    direction: np.ndarray
    length: float


def make_push(action: Float[np.ndarray, "4"]) -> Push:
    """The push of an action (x_start, z_start, x_end, z_end), each clipped to [-4, 4]."""
    start, end = np.clip(action, -REACH, REACH).reshape(2, 2)
    length = float(np.linalg.norm(end - start))
    direction = (end - start) / length if length > 0 else np.array([0.0, 1.0])
    return Push(start, end, direction, length)


def clear_way(push: Push, pusher: Pusher, points: Float[np.ndarray, "n 2"], clearance: float) -> float | None:
    """How far the pusher travels before it is within `clearance` of a point; None if it never is.

    Until then nothing can move, so that part need not be simulated. The foot counts as its rectangle.

    Args:
        points: centres of what lies on the table, in the table frame.
        clearance: how far from such a centre its surface may be, and some air.
    """
    from_start = points - push.start
    along = from_start @ push.direction
    aside = np.abs(from_start @ np.array([-push.direction[1], push.direction[0]]))
    reach = pusher.half_depth + clearance
    met = (aside < pusher.half_width + clearance) & (along > -reach) & (along < push.length + reach)
    return float(np.clip(along[met].min() - reach, 0, push.length)) if met.any() else None


def braking_steps(length: float, step_s: float) -> Float[np.ndarray, "n"]:
    """How far along `length` the pusher is after each simulator step: full speed, braking at the end; the last is `length`."""
    travelled, rest, steps = 0.0, length, []
    while rest > 1e-9:
        speed = min(SPEED, np.sqrt(2 * BRAKING * rest))
        travelled += min(rest, max(speed, BRAKING * step_s) * step_s)
        rest = length - travelled
        steps.append(travelled)
    return np.array(steps)


def random_push(
    points: Float[np.ndarray, "n 2"], rng: np.random.Generator, past: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, "4"]:
    """An action that pushes through a particle and past it: the rule is told at `PushParticlesPolicy`.

    Args:
        points: the particles in the table frame.
        past: range of the way past the particle, units along x.
    """
    near = points[np.linalg.norm(points - np.median(points, axis=0), axis=1) < NEAR_MEDIAN]
    aims = near if len(near) else points
    for _ in range(NUM_TRIES):
        start = rng.uniform(-REACH, REACH, size=2)
        aim = aims[rng.integers(len(aims))]
        beyond = rng.uniform(*past)
        if aim[0] == start[0]:
            continue
        slope = (aim[1] - start[1]) / (aim[0] - start[0])
        end_x = aim[0] + np.copysign(beyond, aim[0] - start[0])
        end = np.array([end_x, start[1] + slope * (end_x - start[0])])
        if (np.abs(end) < END_RANGE).all() and np.linalg.norm(points - start, axis=1).min() > START_CLEARANCE:
            return np.concatenate([start, end])
    return NO_PUSH.copy()
