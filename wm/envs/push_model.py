"""What a push does, guessed from geometry: points out of the pusher's way, and not through each other. No physics, many pushes at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wm.envs.push_path import Pusher, make_push

NUM_STEPS = 30  # of a push
LINK_ROUNDS = 12  # of pulling a rope's points back to their distances, each step
APART_ROUNDS = 2  # of moving grains out of each other


def predict_pushes(
    points: Float[np.ndarray, "n 2"],
    actions: Float[np.ndarray, "k 4"],
    pusher: Pusher,
    thickness: float,
    chained: bool,
) -> Float[np.ndarray, "k n 2"]:
    """Where each of `k` pushes would leave the points.

    Args:
        points: key points in the table frame.
        thickness: from a key point to its surface.
        chained: neighbours in the list keep their distance (a rope); otherwise no two come nearer than 2 `thickness`.
    """
    pushes = [make_push(action) for action in actions]
    starts = np.array([push.start for push in pushes])
    directions = np.array([push.direction for push in pushes])
    lengths = np.array([push.length for push in pushes])
    guess = np.repeat(points[None], len(actions), axis=0)
    link_lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    # A stretch in which nothing is met changes nothing, so the steps are spent on the rest.
    along = np.einsum("knd,kd->kn", guess - starts[:, None], directions)
    reach = max(pusher.half_width, pusher.half_depth) + thickness
    first = np.clip(along.min(axis=1) - reach, 0, lengths)
    for step in range(NUM_STEPS + 1):
        feet = starts + (first + (lengths - first) * step / NUM_STEPS)[:, None] * directions
        _clear_foot(guess, feet, directions, pusher, thickness)
        if chained:
            _pull_links(guess, link_lengths)
        else:
            _move_apart(guess, 2 * thickness)
    return guess


def _clear_foot(
    guess: np.ndarray, feet: np.ndarray, directions: np.ndarray, pusher: Pusher, thickness: float
) -> None:
    """Move points out of the foot: radially from a stick; forwards, or back if behind its middle, from a board."""
    apart = guess - feet[:, None]
    if pusher.round:
        distance = np.linalg.norm(apart, axis=-1, keepdims=True)
        outside = feet[:, None] + apart / np.maximum(distance, 1e-9) * (pusher.half_width + thickness)
        np.copyto(guess, outside, where=distance < pusher.half_width + thickness)
        return
    sideways = np.stack([-directions[:, 1], directions[:, 0]], axis=-1)
    ahead = np.einsum("knd,kd->kn", apart, directions)
    aside = np.abs(np.einsum("knd,kd->kn", apart, sideways))
    depth = pusher.half_depth + thickness
    inside = (np.abs(ahead) < depth) & (aside < pusher.half_width + thickness / 2)
    shift = np.where(inside, np.where(ahead < -pusher.half_depth / 2, -depth, depth) - ahead, 0)
    guess += shift[..., None] * directions[:, None]


def _pull_links(guess: np.ndarray, link_lengths: np.ndarray) -> None:
    """Neighbours back to their distances, every other link at a time."""
    for round_ in range(2 * LINK_ROUNDS):
        odd = round_ % 2
        first, second = guess[:, odd:-1:2], guess[:, odd + 1 :: 2]
        apart = second - first
        distance = np.linalg.norm(apart, axis=-1, keepdims=True)
        excess = (distance - link_lengths[odd::2, None]) / np.maximum(distance, 1e-9) / 2 * apart
        first += excess
        second -= excess


def _move_apart(guess: np.ndarray, least: float) -> None:
    """Points nearer than `least` each half of the way out."""
    for _ in range(APART_ROUNDS):
        apart = guess[:, :, None] - guess[:, None]
        distance = np.sqrt((apart**2).sum(axis=-1))
        lack = np.where(distance < least, least - distance, 0) / np.maximum(distance, 1e-9) / 2
        guess += np.einsum("kij,kijd->kid", lack, apart) * 0.7
