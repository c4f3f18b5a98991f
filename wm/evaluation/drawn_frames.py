"""Held-out states as their world draws them again, under each of its shifts; states sampled afresh; distances to goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from wm.config.probes import ProbesConfig
from wm.contracts import World
from wm.evaluation.probe_worlds import BuildWorld, ProbeWorld
from wm.evaluation.state_targets import is_velocity

_TIE = 1e-3  # of the largest distance: nearer than this two distances are one (objects at rest tremble)
_UNLIKE = 8.0  # mean absolute difference of a drawn and the recorded picture (0..255) that makes a person look


@dataclass(frozen=True)
class StatesToDraw:
    """A few states of one held-out episode.

    Args:
        index: of the episode in its source.
        states: (n, S) as the world has them, float64.
        recorded: uint8 (n, H, W, 3).
    """

    id: str
    index: int
    tags: Mapping[str, float]
    states: np.ndarray
    recorded: np.ndarray


@dataclass(frozen=True)
class DrawnFrames:
    """One held-out episode's states drawn again, and others sampled in its layout.

    Args:
        plain: uint8 (n, H, W, 3) by the world as it is; no two are the same to the pixel.
        shifted: by shift: which of `plain` each picture is (m,), and the pictures (m, H, W, 3).
        fresh: uint8 (N, H, W, 3); N may be 0.
        fresh_goals: (G,) which of them are goals.
        fresh_distances: (G, N), see `goal_distances`.
    """

    id: str
    plain: np.ndarray
    shifted: Mapping[str, tuple[np.ndarray, np.ndarray]]
    fresh: np.ndarray
    fresh_goals: np.ndarray
    fresh_distances: np.ndarray

    @property
    def num_frames(self) -> int:
        return len(self.plain) + len(self.fresh) + sum(len(frames) for _, frames in self.shifted.values())


def goal_distances(world: World, states: np.ndarray, goals: Sequence[int] | np.ndarray) -> np.ndarray:
    """(G, T) the world's own distance of each state (T, S) to each goal, in thousandths of a goal's largest.

    Velocities are those of the goal: one picture shows none. The goal itself is NaN, and so is a whole row where every state
    counts as the goal (`World.success`): there is no way to be ordered.
    """
    still = np.array([is_velocity(name) for name in world.state_names])
    found = np.full((len(goals), len(states)), np.nan)
    for row, goal in enumerate(goals):
        there = np.where(still, states[goal], states)
        if all(world.success(state, states[goal]) for state in there):
            continue
        apart = np.array([world.distance(state, states[goal]) for state in there])
        found[row] = np.round(apart / max(apart.max() * _TIE, 1e-12))
        found[row, goal] = np.nan
    return found


def draw_episodes(
    world: World,
    probe_world: ProbeWorld,
    build_world: BuildWorld,
    picks: Sequence[StatesToDraw],
    config: ProbesConfig,
    rng: np.random.Generator,
) -> tuple[list[DrawnFrames], list[str]]:
    """Every pick drawn by the world and under its shifts; and notes on what could not be.

    Args:
        world: of `probe_world`, open.
    """
    notes: list[str] = []
    plain: list[StatesToDraw] = []
    fresh: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    unlike, refused = 0.0, 0
    for pick in picks:
        probe_world.put_layout(world, pick.index, pick.tags)
        kept, frames = _pictures(world, pick.states)
        refused += len(pick.states) - len(kept)
        if frames.shape[1:] == pick.recorded.shape[1:]:
            unlike = max(unlike, float(np.abs(frames.astype(float) - pick.recorded[kept]).mean()) if len(kept) else 0.0)
        first = np.unique(looks(frames), return_index=True)[1]
        plain.append(StatesToDraw(pick.id, pick.index, pick.tags, pick.states[kept][first], frames[first]))
        fresh.append(_sampled(world, config, rng))
    if refused:
        notes.append(f"{refused} recorded states are refused by world '{world.name}' and not drawn again")
    if unlike > _UNLIKE:
        notes.append(
            f"world '{world.name}' draws its states otherwise than they were recorded (by {unlike:.0f} of 255 on average): "
            "is its layout known?"
        )
    shifted: list[dict[str, tuple[np.ndarray, np.ndarray]]] = [{} for _ in picks]
    for shift in probe_world.shifts:
        with closing(build_world(probe_world.shifted(shift))) as other:
            for number, pick in enumerate(plain):
                probe_world.put_layout(other, pick.index, pick.tags)
                kept, frames = _pictures(other, pick.states)
                if len(kept):
                    shifted[number][shift] = kept, frames
    if not probe_world.shifts:
        notes.append(f"no shift probe: world '{world.name}' has no shifts")
    return [
        DrawnFrames(pick.id, pick.recorded, shifted[number], *fresh[number]) for number, pick in enumerate(plain)
    ], notes


def looks(frames: np.ndarray) -> np.ndarray:
    """(T,) a number for each picture, rising with the first of its kind; the same where they are the same to the pixel."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(frame.tobytes(), len(numbers)) for frame in frames], int)


def _pictures(world: World, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which states the world takes up, and their pictures."""
    kept: list[int] = []
    frames: list[np.ndarray] = []
    for number, state in enumerate(states):
        try:
            world.reset_to(state)
        except ValueError:  # counted by the caller
            continue
        kept.append(number)
        frames.append(world.render())
    empty = np.zeros((0, world.frame_size, world.frame_size, 3), np.uint8)
    return np.array(kept, int), np.stack(frames) if frames else empty


def _sampled(world: World, config: ProbesConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of states that the world samples at its layout, goals among them, and distances."""
    pairs = [world.sample_problem(rng) for _ in range((config.fresh_states + 1) // 2)]
    states = np.array([state for pair in pairs for state in pair])[: config.fresh_states]
    kept, frames = _pictures(world, states)
    goals = rng.permutation(len(kept))[: config.goals_per_episode]
    return frames, goals, goal_distances(world, states[kept], goals)
