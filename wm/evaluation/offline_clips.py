"""Which recorded clips are planned on: drawn once for a data set, the same for every checkpoint and planner."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from wm.config.errors import UserError
from wm.contracts import Source
from wm.types import ClipRef, Observation


class DrawnClip(NamedTuple):
    """A stretch of a recorded episode, and one of another whose actions serve as a control.

    Args:
        id: names the stretch, the same for every checkpoint.
        start, other_start: env steps.
    """

    id: str
    episode: int
    start: int
    other_episode: int
    other_start: int


@dataclass(frozen=True)
class OfflineClip:
    """What is planned on, as the model takes it.

    Args:
        id, episode: names of the clip and of its episode.
        obs: the frames before the start that the episode has and the model remembers, the start, and a frame for each model
            step to the goal, (1, T, ...).
        actions: normalised, recorded after each frame but the last, (T - 1, A F).
        now: index of the start among the frames.
        other: another clip's recorded actions, normalised (T - 1 - now, A F).
    """

    id: str
    episode: str
    obs: Observation
    actions: Tensor
    now: int
    other: Tensor

    @property
    def goal_horizon(self) -> int:
        """Model steps from the start to the goal."""
        return len(self.actions) - self.now


def labelled_episodes(source: Source, episodes: Sequence[int]) -> tuple[list[int], int]:
    """(those with actions, how many have none). Raises UserError when none has, or there is none."""
    if not episodes:
        raise UserError(f"--offline {source.name}: no held-out episode that can be used")
    labelled = [index for index in episodes if source.episode(index).actions is not None]
    if not labelled:
        raise UserError(
            f"--offline {source.name}: none of its {len(episodes)} episodes has actions, so that there is nothing to compare "
            "a plan with"
        )
    return labelled, len(episodes) - len(labelled)


def check_horizons(source: Source, episodes: Sequence[int], horizons: Sequence[int], frameskip: int) -> None:
    """Raises UserError, with the longest possible, for a goal that lies beyond the end of every episode."""
    steps = max(source.lengths[index] for index in episodes)
    longest = (steps - 1) // frameskip
    facts = f"the longest of {len(episodes)} held-out episodes has {steps} env steps, at frameskip {frameskip}"
    if max(horizons) > longest:
        possible = f"the longest possible is {longest}" if longest else "not one model step fits"
        raise UserError(f"evaluate.grid.goal_horizons: {max(horizons)} is too long; {possible} ({facts})")


def draw_clips(
    source: Source, episodes: Sequence[int], *, count: int, goal_horizon: int, frameskip: int, seed: int
) -> list[DrawnClip]:
    """Up to `count` different clips: one of every episode before a second of any, at random starts.

    A clip and its control depend on the data, the seed, the goal horizon and the frameskip alone; fewer of them are the first ones
    of more. The control comes from another episode where there is one, and else from this one.
    """
    steps = goal_horizon * frameskip
    starts = {index: source.lengths[index] - steps for index in episodes if source.lengths[index] > steps}
    rng = np.random.default_rng([seed, goal_horizon])
    orders = {index: rng.permutation(starts[index]) for index in np.array(list(starts))[rng.permutation(len(starts))]}
    clips: list[DrawnClip] = []
    for turn in range(max(starts.values(), default=0)):
        for episode, order in orders.items():
            if turn < len(order) and len(clips) < count:
                clips.append(_with_control(source, starts, int(episode), int(order[turn]), (seed, goal_horizon)))
        if len(clips) == count:
            break
    return clips


def _with_control(
    source: Source, starts: dict[int, int], episode: int, start: int, seeds: tuple[int, int]
) -> DrawnClip:
    name = f"{source.episode(episode).id}@{start}"
    rng = np.random.default_rng([*seeds, zlib.crc32(name.encode())])
    others = [index for index in starts if index != episode] or [episode]
    other = others[rng.integers(len(others))]
    return DrawnClip(name, episode, start, other, int(rng.integers(starts[other])))


def clip_refs(
    clip: DrawnClip, source: str, goal_horizon: int, frameskip: int, history_len: int
) -> tuple[ClipRef, ClipRef]:
    """(the clip with the history that its episode has, the control's)."""
    past = min(history_len - 1, clip.start // frameskip)
    frames = goal_horizon + 1
    return (
        ClipRef(source, clip.episode, clip.start - past * frameskip, frameskip, past + frames),
        ClipRef(source, clip.other_episode, clip.other_start, frameskip, frames),
    )
