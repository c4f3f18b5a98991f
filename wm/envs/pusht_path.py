"""The pusher's way round a block of Push-T."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float

from wm.envs.pusht_shapes import Block

MARGIN = 2.0  # pixels kept between pusher and block on the way
CORNER_MARGIN = 4.0  # pixels, from a corner's sides to the place where it is rounded
SAMPLING = 4.0  # pixels between the points of a way that are looked at


def next_place(
    block: Block,
    pose: Float[np.ndarray, " 3"],
    radius: float,
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
) -> Float[np.ndarray, " 2"]:
    """The first corner of the shortest way from start to end that leaves the block alone; `end` if it is in sight.

    Where there is no such way (the pusher is wedged in), the place straight away from the block.
    """
    ends = np.stack([start, end])
    if _in_sight(block, pose, radius, start, end, block.clearance(pose, ends).min()):
        return end
    corners = _corner_places(block, pose, radius)
    places = np.concatenate([ends, corners[block.clearance(pose, corners) >= radius + MARGIN]])
    clearance = block.clearance(pose, places)
    length = np.full((len(places), len(places)), np.inf)
    for i, j in combinations(range(len(places)), 2):
        if _in_sight(block, pose, radius, places[i], places[j], min(clearance[i], clearance[j])):
            length[i, j] = length[j, i] = np.linalg.norm(places[i] - places[j])
    way = _shortest(length)
    if way is None:
        return _away(block, pose, radius, start)
    return places[way[1]]


def _corner_places(block: Block, pose: Float[np.ndarray, " 3"], radius: float) -> Float[np.ndarray, "n 2"]:
    """Where the pusher's centre rounds each part's corners."""
    out = radius + CORNER_MARGIN
    grown = [
        part._replace(left=part.left - out, right=part.right + out, top=part.top - out, bottom=part.bottom + out)
        for part in block.parts
    ]
    return block._replace(parts=tuple(grown)).corners_at(pose).reshape(-1, 2)


def _in_sight(
    block: Block,
    pose: Float[np.ndarray, " 3"],
    radius: float,
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
    at_ends: float,
) -> bool:
    """Whether the straight way keeps its margin, or at least what its ends have where that is less."""
    count = int(np.linalg.norm(end - start) / SAMPLING) + 2
    points = start + np.linspace(0, 1, count)[:, None] * (end - start)
    return bool(block.clearance(pose, points).min() >= min(radius + MARGIN, at_ends) - 0.3)


def _shortest(length: Float[np.ndarray, "n n"]) -> list[int] | None:
    """Dijkstra from place 0 to place 1."""
    count = len(length)
    best, before, open_places = np.full(count, np.inf), np.full(count, -1), set(range(count))
    best[0] = 0.0
    while open_places:
        here = min(open_places, key=lambda place: best[place])
        if here == 1 or not np.isfinite(best[here]):
            break
        open_places.remove(here)
        shorter = best[here] + length[here] < best
        best = np.where(shorter, best[here] + length[here], best)
        before = np.where(shorter, here, before)
    if not np.isfinite(best[1]):
        return None
    way = [1]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    return way[::-1]


def _away(
    block: Block, pose: Float[np.ndarray, " 3"], radius: float, start: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, " 2"]:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = start + (radius / 2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return around[block.clearance(pose, around).argmax()]
