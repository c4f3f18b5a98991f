"""Episodes of any source as recorded episodes, whole, with frames of a chosen size: what the writers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from wm.contracts import Episode
from wm.data.sources.deformable import particle_names
from wm.data.sources.file_source import FileSource
from wm.data.sources.robosuite_states import DemoStates
from wm.data.writers.deformable import PARTICLE_SIZE
from wm.types import RecordedEpisode

FRAMES_AT_ONCE = 64


class Recorded(Protocol):
    """Episodes that are read, or drawn, one at a time."""

    def id(self, index: int) -> str:
        """For messages and records."""
        ...

    def recorded(self, index: int) -> RecordedEpisode:
        """Raises UserError where what it comes from is damaged."""
        ...


class SourceEpisodes:
    """The episodes of one source, seen by one or several cameras.

    Args:
        sources: the same data set, opened for each camera; the first is the main one.
        cameras: their names; empty where there is one without a name.
        size: shorter side of the frames in pixels; None keeps them.
        task: in words, instead of what an episode says itself.
        states: of the same demonstrations, where the simulator's states and models are to be kept.
    """

    def __init__(
        self,
        sources: Sequence[FileSource],
        cameras: Sequence[str],
        size: int | None,
        task: str | None = None,
        states: DemoStates | None = None,
    ) -> None:
        self.sources = sources
        self.cameras = cameras
        self.size = size
        self.task = task
        self.states = states

    def id(self, index: int) -> str:
        """As the source has it."""
        return self.sources[0].episode(index).id

    def recorded(self, index: int) -> RecordedEpisode:
        """What the source lacks has no columns."""
        first, *others = (source.episode(index) for source in self.sources)
        state = _columns(first.state, first)
        is_deformable = _is_particles(self.sources[0].state_names) and state.shape[1]
        return RecordedEpisode(
            frames=read_frames(first, self.size),
            states=state,
            actions=_columns(first.actions, first),
            layout=dict(first.tags),
            proprio=_columns(first.proprio, first),
            views={
                name: read_frames(each, self.size) for name, each in zip(self.cameras[1:], others, strict=bool(others))
            },
            flat_states=None if self.states is None else self.states.states(index),
            model_file=None if self.states is None else self.states.model_file(index),
            particles=state.reshape(len(state), -1, PARTICLE_SIZE) if is_deformable else None,
            task=self.task or first.task,
        )


def scaled(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Height and width when the shorter side is `size` pixels; the longer one is rounded to an even number."""
    if size is None or size == min(height, width):
        return height, width
    longer = 2 * round(size * max(height, width) / min(height, width) / 2) if height != width else size
    return (size, longer) if height <= width else (longer, size)


def resized(frames: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 (n, H, W, 3) with the shorter side of `size` pixels, averaged over areas."""
    height, width = scaled(frames.shape[1], frames.shape[2], size)
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def read_frames(episode: Episode, size: int | None) -> np.ndarray:
    """Every frame of an episode, uint8 (T, H, W, 3)."""
    starts = range(0, episode.length, FRAMES_AT_ONCE)
    return np.concatenate(
        [
            resized(episode.frames(np.arange(start, min(start + FRAMES_AT_ONCE, episode.length))), size)
            for start in starts
        ]
    )


def _is_particles(names: Sequence[str]) -> bool:
    """Whether a state is that of the deformable layout, wherever it lies: places and inverse masses."""
    return bool(names) and tuple(names) == particle_names(len(names) // PARTICLE_SIZE)


def _columns(values: np.ndarray | None, episode: Episode) -> np.ndarray:
    return np.zeros((episode.length, 0), np.float32) if values is None else values
