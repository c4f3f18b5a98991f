"""What of a state a linear probe should find in one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wm.envs.pusht_shapes import shape_of_number
from wm.envs.robosuite_tasks import TASKS, KeyPoint, Task

_VELOCITY = re.compile(r"(^|_)(v|v[xyz]|vel|velocity|speed|omega|qvel)(_|\d|$)")
_ANGLE = re.compile(r"(^|_)(angle|theta|yaw|heading|phi)(_|$)")
_PARTICLE = re.compile(r"^([xyz])(\d+)$")
_QUATERNION = ("qx", "qy", "qz", "qw")
_TURNS_INTO_ITSELF = ("Z", "square", "I", "plus")  # shapes whose angle no picture shows
_STILL = 1e-4  # a column with less spread, relative to its own size, does not vary

Columns = dict[str, np.ndarray]  # each (N,); NaN where a row does not show it


class Targets(NamedTuple):
    """Args:
    values: (N, S) float64, NaN where a picture cannot show the entry.
    """

    names: tuple[str, ...]
    values: np.ndarray


def is_velocity(name: str) -> bool:
    """Whether a column is, by its name, a velocity: one picture shows none."""
    return _VELOCITY.search(name.lower()) is not None


def state_targets(
    names: Sequence[str], states: np.ndarray, world: str = "", shapes: np.ndarray | None = None
) -> Targets:
    """Targets of a linear probe from states (N, S).

    * Velocities, by name, are left out.
    * Angles are cos and sin. Those of Push-T's shapes that a turn maps onto themselves (Z, square, I, plus) are NaN.
    * Particles (x0, y0, z0, x1, ...): which is which cannot be seen, so moments of the cloud: mean x and z, standard deviations
      along x and z, and their correlation. y points up and is left out; so are inverse masses.
    * Objects with a quaternion: in robosuite's tasks the task's key points (centres of cubes, which look the same after
      a quarter turn; centre and top of the can, whose turn about its axis does not show; centre and handle of the nut), elsewhere
      the place and the first two columns of the rotation matrix: a quaternion and its negative are one turn.
    * All else as it is: places, joint angles (they do not wrap), fingers.

    Args:
        world: its kind; empty where it is not known.
        shapes: Push-T's layout number of each row, (N,).
    """
    columns: Columns = {name: states[:, index].astype(np.float64) for index, name in enumerate(names)}
    seen = {name: values for name, values in columns.items() if not is_velocity(name)}
    particles = [name for name in seen if _PARTICLE.match(name)]
    if len(particles) >= 6:
        found = _moments(seen, particles)
    else:
        found = _with_turns(_with_objects(seen, _task(world)), _shown(world, shapes, len(states)))
    return Targets(tuple(found), np.stack(list(found.values()), axis=1) if found else np.zeros((len(states), 0)))


def varying(targets: Targets, *halves: np.ndarray) -> Targets:
    """Without the entries that stand still in one of the halves (masks over rows): there is nothing to find."""
    kept = [index for index in range(len(targets.names)) if all(_varies(targets.values[h, index]) for h in halves)]
    return Targets(tuple(targets.names[index] for index in kept), targets.values[:, kept])


def _varies(values: np.ndarray) -> bool:
    there = values[np.isfinite(values)]
    return len(there) > 2 and float(there.std()) > _STILL * max(float(np.abs(there).max()), _STILL)


def _task(world: str) -> Task | None:
    return next((task for kind, task in TASKS.items() if kind == world), None)


def _moments(columns: Columns, particles: Sequence[str]) -> Columns:
    """Of the particles' places seen from above."""
    x, z = (np.stack([columns[name] for name in particles if name[0] == axis], axis=1) for axis in "xz")
    dx, dz = x - x.mean(axis=1, keepdims=True), z - z.mean(axis=1, keepdims=True)
    spread_x, spread_z = x.std(axis=1), z.std(axis=1)
    together = (dx * dz).mean(axis=1) / np.maximum(spread_x * spread_z, 1e-12)
    means = {"mean_x": x.mean(axis=1), "mean_z": z.mean(axis=1)}
    return {**means, "spread_x": spread_x, "spread_z": spread_z, "correlation_xz": together}


def _with_objects(columns: Columns, task: Task | None) -> Columns:
    """Poses of objects as points, or as a place and two axes."""
    found = dict(columns)
    prefixes = [name.removesuffix("qx") for name in columns if name.endswith("qx")]
    for prefix in prefixes:
        if not all(prefix + part in columns for part in _QUATERNION):
            continue
        matrix = _rotations(np.stack([found.pop(prefix + part) for part in _QUATERNION], axis=1))
        points = _key_points(prefix, task)
        if points is None:
            found |= {f"{prefix}axis{i}_{'xyz'[row]}": matrix[:, row, i] for i in (0, 1) for row in range(3)}
            continue
        for number, point in enumerate(points):
            if not any(point.offset):
                continue  # the place itself is there already
            moved = matrix @ np.array(point.offset)
            for row, axis in enumerate("xyz"):
                found[f"{prefix}point{number}_{axis}"] = columns[prefix + axis] + moved[:, row]
    return found


def _key_points(prefix: str, task: Task | None) -> list[KeyPoint] | None:
    label = prefix.removesuffix("_")
    if task is None or label not in task.labels:
        return None
    return [point for point in task.key_points if point.item == task.labels.index(label)]


def _rotations(quaternions: np.ndarray) -> np.ndarray:
    """(N, 4) as x, y, z, w -> (N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(quaternions).as_matrix()


def _with_turns(columns: Columns, shown: np.ndarray) -> Columns:
    found: Columns = {}
    for name, values in columns.items():
        if _ANGLE.search(name.lower()):
            found[f"cos_{name}"] = np.where(shown, np.cos(values), np.nan)
            found[f"sin_{name}"] = np.where(shown, np.sin(values), np.nan)
        else:
            found[name] = values
    return found


def _shown(world: str, shapes: np.ndarray | None, count: int) -> np.ndarray:
    """(N,) whether a picture tells the angle."""
    if world != "pusht" or shapes is None:
        return np.ones(count, bool)
    hidden = [number for number in np.unique(shapes) if shape_of_number(float(number)) in _TURNS_INTO_ITSELF]
    return ~np.isin(shapes, hidden)
