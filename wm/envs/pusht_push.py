"""What straight pushes do to a block of Push-T: a table of displacements, in the block's own frame.

The world has no friction and no inertia (its damping stops the block at every substep), so a pusher that moves into the
block by a small depth d along the contact's normal n displaces it by the smallest motion that makes room:

    shift = d n / (m e),  turn = d (r x n) / (I e),  e = 1 / m + (r x n)^2 / I

with r from the centre of gravity to the contact. Summed along a straight way this gives where a push leads, and as it does
not depend on where the block lies, it need be computed once for a block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wm.config.worlds import PushTShape
from wm.envs.pusht_shapes import BLOCKS, Block

CONTACT_SPACING = 7.0  # pixels along the outline
GAP = 5.0  # pixels between pusher and block where a push starts
SLANTS = (-30.0, 0.0, 30.0)  # degrees, of the way against the inward normal
LONGEST, RECORDED = 100, 4  # pixels of way; one entry every so many

Poses = Float[np.ndarray, "*n 3"]  # x, y, angle


class PushTable(NamedTuple):
    """Pushes of one block, all in its frame at the start.

    Args:
        start: where the pusher's centre begins.
        heading: unit vectors, where it goes.
        length: pixels of way.
        moved: the block's pose afterwards, from (0, 0, 0).
    """

    start: Float[np.ndarray, "n 2"]
    heading: Float[np.ndarray, "n 2"]
    length: Float[np.ndarray, " n"]
    moved: Float[np.ndarray, "n 3"]

    def take(self, rows: Int[np.ndarray, " m"]) -> PushTable:
        """Some of them."""
        return PushTable(*(column[rows] for column in self))


def compose(first: Poses, second: Poses) -> Poses:
    """The pose that `second` is, if it is told in the frame of `first`; both broadcast."""
    return np.concatenate(
        [first[..., :2] + turned(second[..., :2], first[..., 2]), first[..., 2:] + second[..., 2:]], axis=-1
    )


def turned(vectors: Float[np.ndarray, "*n 2"], angles: Float[np.ndarray, "*m"]) -> Float[np.ndarray, "*k 2"]:
    """Vectors rotated by angles."""
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


@lru_cache(maxsize=32)
def push_table(
    shape: PushTShape, radius: float, slants: tuple[float, ...] = SLANTS, recorded: int = RECORDED
) -> PushTable:
    """All pushes that a pusher of some radius can start without overlap and that move the block."""
    block = BLOCKS[shape]
    contacts, normals = _outline(block)
    start = contacts + (radius + GAP) * normals
    origin = np.zeros(3)
    free = block.clearance(origin, start) > radius + GAP - 0.5
    start, normals = start[free], normals[free]

    start = np.repeat(start, len(slants), axis=0)
    heading = turned(-np.repeat(normals, len(slants), axis=0), np.tile(np.radians(slants), len(normals)))
    pose, lengths, poses = np.zeros((len(start), 3)), [], []
    for length in range(1, LONGEST + 1):
        pose = _make_room(block, pose, start + length * heading, radius)
        if length % recorded == 0:
            lengths.append(length)
            poses.append(pose)
    table = PushTable(
        start=np.tile(start, (len(lengths), 1)),
        heading=np.tile(heading, (len(lengths), 1)),
        length=np.repeat(np.array(lengths, float), len(start)),
        moved=np.concatenate(poses),
    )
    return table.take(np.flatnonzero(np.abs(table.moved).max(axis=1) > 1.0))


def _outline(block: Block) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Points on the block's outline, and the normals that point out of it."""
    points, normals = [], []
    for part in block.parts:
        corners = np.array(part.corners)
        for corner, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            side = following - corner
            count = max(round(float(np.linalg.norm(side)) / CONTACT_SPACING), 1)
            points.append(corner + (np.arange(count)[:, None] + 0.5) / count * side)
            normals.append(np.tile(np.array([side[1], -side[0]]) / np.linalg.norm(side), (count, 1)))
    points, normals = np.concatenate(points), np.concatenate(normals)
    outside = block.clearance(np.zeros(3), points + 0.1 * normals) > 0.05
    return points[outside], normals[outside]


def _make_room(
    block: Block, pose: Float[np.ndarray, "n 3"], pusher: Float[np.ndarray, "n 2"], radius: float
) -> Float[np.ndarray, "n 3"]:
    """Each block's pose after it has given way to its pusher."""
    local = turned(pusher - pose[:, :2], -pose[:, 2])[:, None]
    low = np.array([(part.left, part.top) for part in block.parts])
    high = np.array([(part.right, part.bottom) for part in block.parts])
    nearest = np.clip(local, low, high)
    distance = np.linalg.norm(local - nearest, axis=-1)
    part = distance.argmin(axis=1)[:, None]
    distance = np.take_along_axis(distance, part, axis=1)[:, 0]
    contact = np.take_along_axis(nearest, part[..., None], axis=1)[:, 0]
    normal = (contact - local[:, 0]) / np.maximum(distance, 1e-9)[:, None]
    depth = np.maximum(radius - distance, 0.0)

    centre = np.array(block.centre_of_gravity)
    arm = contact - centre
    lever = arm[:, 0] * normal[:, 1] - arm[:, 1] * normal[:, 0]
    push = depth / (1 + lever**2 / block.moment)  # the mass is 1
    turn = push * lever / block.moment
    shift = push[:, None] * normal + centre - turned(centre, turn)  # of the frame's origin: it turns about the centre
    return compose(pose, np.concatenate([shift, turn[:, None]], axis=1))
