"""What the four robosuite tasks are: their objects, the rule of each, and how far apart two states of it are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

TaskKind = Literal["lift", "can", "square", "stack"]

NUM_ARM, NUM_FINGERS = 7, 2
NUM_PROPRIO = NUM_ARM + NUM_FINGERS + NUM_ARM  # joint positions, fingers, joint velocities
POSE_SIZE = 7  # position 3, quaternion 4 (x, y, z, w)

PROPRIO_NAMES: tuple[str, ...] = (
    *(f"joint_pos_{joint}" for joint in range(1, NUM_ARM + 1)),
    "gripper_qpos_1",
    "gripper_qpos_2",
    *(f"joint_vel_{joint}" for joint in range(1, NUM_ARM + 1)),
)

LIFTED = 0.04  # metres above the table's top, robosuite's margin in lift and stack
BIN_HEIGHT = 0.1  # metres above the bin's floor that still count as in it
PEG_TOLERANCE = 0.03  # metres in x and in y
ON_PEG_HEIGHT = 0.05  # metres above the table's top
HAND_IS_NEAR = 0.6  # robosuite's 1 - tanh(10 d): can and square count only when the hand has left the object


@dataclass(frozen=True)
class KeyPoint:
    """A point that is fixed to an object; two states are as far apart as the key point that moved most.

    Args:
        item: index of the object.
        offset: in the object's frame, metres.
    """

    item: int
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Task:
    """One robosuite task.

    Args:
        env_name: robosuite's own name.
        items: robosuite's names of the objects in the state, in its order.
        labels: what their entries of the state are called.
        absent: objects of the model that take no part; they lie out of sight.
        key_points: see `KeyPoint`.
        threshold: metres; every key point nearer than this to the goal's is goal success.
    """

    env_name: str
    items: tuple[str, ...]
    labels: tuple[str, ...]
    key_points: tuple[KeyPoint, ...]
    threshold: float
    absent: tuple[str, ...] = field(default=())

    @property
    def state_names(self) -> tuple[str, ...]:
        parts = ("x", "y", "z", "qx", "qy", "qz", "qw")
        return (*PROPRIO_NAMES, *(f"{label}_{part}" for label in self.labels for part in parts))


# Thresholds: half the width of what is moved, so that object and goal overlap by half in every direction. A cube's edge is
# 4 cm (its turn about any axis is a symmetry or does not matter to the task); the can is 5 cm across, and its top counts
# too, so that a fallen can is not a success; the nut's hole leaves 0.7 cm of play on the peg, and its handle, 5.4 cm from
# the centre, must be within 2 cm as well: 21 degrees.
TASKS: dict[TaskKind, Task] = {
    "lift": Task("Lift", ("cube",), ("cube",), (KeyPoint(0),), threshold=0.02),
    "can": Task(
        "PickPlaceCan",
        ("Can",),
        ("can",),
        (KeyPoint(0), KeyPoint(0, (0.0, 0.0, 0.04))),
        threshold=0.025,
        absent=("Milk", "Bread", "Cereal"),
    ),
    "square": Task(
        "NutAssemblySquare",
        ("SquareNut",),
        ("nut",),
        (KeyPoint(0), KeyPoint(0, (0.054, 0.0, 0.0))),
        threshold=0.02,
        absent=("RoundNut",),
    ),
    "stack": Task("Stack", ("cubeA", "cubeB"), ("cube_a", "cube_b"), (KeyPoint(0), KeyPoint(1)), threshold=0.02),
}


def position(state: np.ndarray, item: int) -> np.ndarray:
    """Where an object is, (3,) metres, in the world's frame."""
    start = NUM_PROPRIO + POSE_SIZE * item
    return np.array(state[start : start + 3], dtype=np.float64)


def quaternion(state: np.ndarray, item: int) -> np.ndarray:
    """How an object is turned, (4,) as x, y, z, w."""
    start = NUM_PROPRIO + POSE_SIZE * item + 3
    return np.array(state[start : start + 4], dtype=np.float64)


def rotation(state: np.ndarray, item: int) -> np.ndarray:
    """The same as a matrix (3, 3)."""
    x, y, z, w = quaternion(state, item) / np.linalg.norm(quaternion(state, item))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def goal_distance(task: Task, state: np.ndarray, goal: np.ndarray) -> float:
    """How far the key point that is farthest from its place in `goal` is from it, metres."""

    def points(of: np.ndarray) -> np.ndarray:
        return np.array([position(of, p.item) + rotation(of, p.item) @ np.array(p.offset) for p in task.key_points])

    return float(np.linalg.norm(points(state) - points(goal), axis=1).max())


def is_lifted(height: float, table_height: float) -> bool:
    """robosuite's Lift, and part of its Stack."""
    return bool(height > table_height + LIFTED)


def is_in_can_bin(at: np.ndarray, bin_corner: np.ndarray, bin_size: np.ndarray) -> bool:
    """robosuite's PickPlace: the can's centre over its quarter of the second bin, and not above its walls.

    Args:
        at: the can, (3,).
        bin_corner: `bin2_pos`, the middle of the bin, which is a corner of the can's quarter.
        bin_size: the whole bin.
    """
    inside = bin_corner[:2] < at[:2], at[:2] < bin_corner[:2] + np.asarray(bin_size[:2]) / 2
    return bool(np.all(inside) and bin_corner[2] < at[2] < bin_corner[2] + BIN_HEIGHT)


def is_on_peg(at: np.ndarray, peg: np.ndarray, table_height: float) -> bool:
    """robosuite's NutAssembly: the nut's centre at the peg's, and low."""
    return bool((np.abs(at[:2] - peg[:2]) < PEG_TOLERANCE).all() and at[2] < table_height + ON_PEG_HEIGHT)


def hand_has_left(hand: np.ndarray, at: np.ndarray) -> bool:
    """robosuite's condition on the hand in can and square: more than about 4.2 cm from the object's centre."""
    return bool(1 - np.tanh(10 * np.linalg.norm(hand - at)) < HAND_IS_NEAR)
