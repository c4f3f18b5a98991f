"""What pushes do, guessed from geometry: points go out of the pusher's way, and not through each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wm.envs.push_path import Pusher, make_push

ROPE_STEPS, GRAIN_STEPS = 40, 16  # of a push
ROPE_ROUNDS = 8  # of straightening a rope and pulling its points back to their distances, each step
STRAIGHTENING = 0.3  # share of a bend that a round takes away: the sum of stiffness against friction


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
    num_steps = ROPE_STEPS if chained else GRAIN_STEPS
    for step in range(num_steps + 1):
        feet = starts + (first + (lengths - first) * step / num_steps)[:, None] * directions
        _clear_foot(guess, feet, directions, pusher, thickness)
        if not chained:
            _move_apart(guess, 2 * thickness)
            continue
        for _ in range(ROPE_ROUNDS):
            _straighten(guess)
            _pull_links(guess, link_lengths)
            _clear_foot(guess, feet, directions, pusher, thickness)
    return guess


def _clear_foot(guess: np.ndarray, feet: np.ndarray, directions: np.ndarray, pusher: Pusher, thickness: float) -> None:
    """Move points out of the foot: radially from a stick; forwards, or back if behind its middle, from a board."""
    sideways = np.stack([-directions[:, 1], directions[:, 0]], axis=-1)
    apart = guess - feet[:, None]
    ahead = np.einsum("knd,kd->kn", apart, directions)
    aside = np.einsum("knd,kd->kn", apart, sideways)
    if pusher.round:
        radius = pusher.half_width + thickness
        distance = np.maximum(np.hypot(ahead, aside), 1e-9)
        inside = distance < radius
        front = np.sqrt(np.maximum(radius**2 - aside**2, 0))
        # Radially from its front half; what a rope has pulled behind its middle comes to the front again.
        new_ahead = np.where(ahead < 0, front, ahead * radius / distance)
        new_aside = np.where(ahead < 0, aside, aside * radius / distance)
        guess += np.where(inside, new_ahead - ahead, 0)[..., None] * directions[:, None]
        guess += np.where(inside, new_aside - aside, 0)[..., None] * sideways[:, None]
        return
    depth = pusher.half_depth + thickness
    inside = (np.abs(ahead) < depth) & (np.abs(aside) < pusher.half_width + thickness / 2)
    shift = np.where(inside, np.where(ahead < -pusher.half_depth / 2, -depth, depth) - ahead, 0)
    guess += shift[..., None] * directions[:, None]


def _straighten(guess: np.ndarray) -> None:
    """Each inner point towards the middle of its neighbours, and these the other way."""
    off = STRAIGHTENING * ((guess[:, :-2] + guess[:, 2:]) / 2 - guess[:, 1:-1])
    guess[:, 1:-1] += off / 2
    guess[:, :-2] -= off / 4
    guess[:, 2:] -= off / 4


def _pull_links(guess: np.ndarray, link_lengths: np.ndarray) -> None:
    """Neighbours back to their distances, every other link at a time."""
    for odd in (0, 1):
        first, second = guess[:, odd:-1:2], guess[:, odd + 1 :: 2]
        apart = second - first
        distance = np.linalg.norm(apart, axis=-1, keepdims=True)
        excess = (distance - link_lengths[odd::2, None]) / np.maximum(distance, 1e-9) / 2 * apart
        first += excess
        second -= excess


def _move_apart(guess: np.ndarray, least: float) -> None:
    """Points nearer than `least` each half of the way out."""
    x, y = (guess[..., axis].astype(np.float32) for axis in (0, 1))
    apart_x, apart_y = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]
    distance = np.sqrt(apart_x * apart_x + apart_y * apart_y)
    share = np.maximum(least / np.maximum(distance, 1e-3) - 1, 0) / 2
    guess[..., 0] += np.einsum("kij,kij->ki", share, apart_x)
    guess[..., 1] += np.einsum("kij,kij->ki", share, apart_y)
