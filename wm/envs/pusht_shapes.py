"""The blocks of Push-T: rectangles, their weight, and the number that stands for each in a layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wm.config.worlds import PushTShape


class Box(NamedTuple):
    """An upright rectangle of the block's own frame, pixels."""

    left: float
    right: float
    top: float  # y points down
    bottom: float

    @property
    def corners(self) -> list[tuple[float, float]]:
        """From (left, top) on, in the order in which the original's pymunk lists them."""
        return [(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def moment(self) -> float:
        """Of mass 1 about the frame's origin, pixels squared."""
        width, height = self.right - self.left, self.bottom - self.top
        x, y = self.centre
        return (width**2 + height**2) / 12 + x**2 + y**2


class Block(NamedTuple):
    """One shape.

    Args:
        number: its name in a layout.
        parts: what it is put together from, in order of creation.
        weighed: the parts whose moments add up to its own, each with the mass of the whole. The original weighs the
            bar of T twice and that of plus three times, and never divides: its numbers are kept.
    """

    number: int
    parts: tuple[Box, ...]
    weighed: tuple[Box, ...]

    @property
    def moment(self) -> float:
        """Pixels squared times mass; the mass is 1."""
        return sum(part.moment for part in self.weighed)

    @property
    def centre_of_gravity(self) -> tuple[float, float]:
        """The plain mean of the parts' centres, in the block's frame: what it turns about in the original."""
        x, y = zip(*(part.centre for part in self.parts), strict=True)
        return sum(x) / len(x), sum(y) / len(y)

    def corners_at(self, pose: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "parts 4 2"]:
        """The parts' corners in the picture's plane, for a pose x, y, angle."""
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        corners = np.array([part.corners for part in self.parts])
        return corners @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]

    def clearance(self, pose: Float[np.ndarray, " 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
        """How far points of the picture's plane are from the block at a pose, pixels; 0 inside."""
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        local = (points - pose[:2]) @ np.array([[cos, -sin], [sin, cos]])
        low = np.array([(part.left, part.top) for part in self.parts])
        high = np.array([(part.right, part.bottom) for part in self.parts])
        outside = np.maximum(np.maximum(low - local[:, None], local[:, None] - high), 0.0)
        return np.linalg.norm(outside, axis=-1).min(axis=1)


def _block(number: int, *parts: Box, weighed: tuple[Box, ...] = ()) -> Block:
    return Block(number, parts, weighed or parts)


_T_BAR, _PLUS_BAR = Box(-60, 60, 0, 30), Box(-60, 60, -20, 20)

# Source: gaoyuezhou/dino_wm 0a9492f; measured corners, moments and centres: tests/golden/worlds, case pusht_shapes.
BLOCKS: Mapping[PushTShape, Block] = {
    "T": _block(0, _T_BAR, Box(-15, 15, 30, 120), weighed=(_T_BAR, _T_BAR)),
    "L": _block(1, Box(0, 40, 0, 80), Box(0, 80, -40, 0)),
    "Z": _block(2, Box(0, 80, 0, 40), Box(-40, 40, -40, 0)),
    "square": _block(3, Box(-40, 40, -40, 40)),
    "I": _block(4, Box(-20, 20, -80, 80)),
    "small_tee": _block(5, Box(-60, 60, 0, 40), Box(-20, 20, 40, 80)),
    "plus": _block(
        6, _PLUS_BAR, Box(-20, 20, 20, 60), Box(-20, 20, -60, -20), weighed=(_PLUS_BAR, _PLUS_BAR, _PLUS_BAR)
    ),
}

_BY_NUMBER: Mapping[float, PushTShape] = {float(block.number): name for name, block in BLOCKS.items()}


def shape_of_number(number: float) -> PushTShape:
    """The shape that a layout's `shape` means. Raises ValueError for a number that no shape has."""
    if number not in _BY_NUMBER:
        known = ", ".join(f"{block.number} {name}" for name, block in BLOCKS.items())
        raise ValueError(f"layout 'shape' is {number}, expected one of {known}")
    return _BY_NUMBER[number]
