"""What every writer of demonstrations does, and what it is told of the data set."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch

from wm.config.errors import UserError
from wm.data.atomic import atomic_file
from wm.types import RecordedEpisode

# Beside a data set: how it was made (without the layout's own marker, the job was interrupted), and what was drawn and came of it.
RECIPE, EPISODES = "recipe.json", "episodes.json"
REPEATABLE = "cpu-independent=1"  # x264's fastest routines give other bytes now and then, from the same frames


@dataclass(frozen=True)
class DatasetFacts:
    """What is the same in every episode.

    Args:
        world: its kind; of what is converted, the name of the data set.
        settings: its config, as JSON can hold it.
        fps: env steps a second.
        task: what is to be done, in words.
        camera: the main one's name, where it has one of its own.
        frame_size: height in pixels.
        frame_width: None where frames are square.
        workspace: which cell or table it was recorded at; None where nobody knows.
        env_info: what makes the simulator again, where the world tells its own states; None elsewhere.
        has_particles: whether every episode has them.
        is_uneven: whether episodes differ in length.
        num_val: how many of the last episodes are held out, where somebody said so.
    """

    world: str
    settings: Mapping[str, Any]
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    proprio_names: tuple[str, ...]
    layout_names: tuple[str, ...]
    episodes: int
    frame_size: int
    fps: int
    task: str
    workspace: int | None = 0
    env_info: Mapping[str, Any] | None = None
    has_particles: bool = False
    frame_width: int | None = None
    is_uneven: bool = False
    num_val: int | None = None
    camera: str | None = None

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height, width."""
        return self.frame_size, self.frame_width or self.frame_size


class Writer(Protocol):
    """One on-disk layout. Frames are written as episodes come, in any process and order; the rest when all are there."""

    marker: str  # the file that is written last, relative to the folder: without it there is no data set
    lacks: str  # what the layout has no place for, as one line; it is in episodes.json
    keeps_frames: bool  # frames wait in the staged episodes, since `write_frames` has nowhere to put them
    bytes_per_value: int  # of a frame's values on disk, at the most

    def check(self) -> None:
        """Raises UserError when the layout cannot hold this world."""
        ...

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """Atomically; a second time gives the same file."""
        ...

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """Write all that is not frames, the marker last.

        Args:
            episodes: read from disk one by one as they are asked for; without frames unless `keeps_frames`.
        """
        ...


class FolderWriter:
    """What most layouts have: arrays that are written last, frames at once, a byte a value."""

    marker = "states.pth"
    keeps_frames = False
    bytes_per_value = 1

    def __init__(self, folder: Path, facts: DatasetFacts) -> None:
        self.folder = folder
        self.facts = facts


def need_sizes(layout: str, facts: DatasetFacts, *, actions: int, states: int | None = None) -> None:
    """Raises UserError when a world's vectors are not those of a layout."""
    found = (len(facts.action_names), len(facts.state_names))
    if found[0] != actions or (states is not None and found[1] != states):
        wanted = f"{actions} actions" + ("" if states is None else f" and {states} state entries")
        raise UserError(f"--format {layout}: holds {wanted}, but world '{facts.world}' has {found[0]} and {found[1]}")


def need_even_sides(facts: DatasetFacts, least: int = 2) -> None:
    """Raises UserError for frames that a video cannot hold: an odd side, or one below `least` pixels."""
    if any(side % 2 or side < least for side in facts.frame_shape):
        found = str(facts.frame_size) if facts.frame_width is None else f"{facts.frame_size} x {facts.frame_width}"
        raise UserError(
            f"--size: {found}, but videos need an even one" + (f" of at least {least}" if least > 2 else "")
        )


def need_one_length(layout: str, facts: DatasetFacts) -> None:
    """Raises UserError for episodes of several lengths, where a layout cannot tell them."""
    if facts.is_uneven:
        raise UserError(f"{layout}: has no place for lengths, and the episodes of '{facts.world}' differ in length")


def save_tensor(path: Path, values: np.ndarray | torch.Tensor) -> None:
    """A .pth file with one tensor, atomically."""
    buffer = io.BytesIO()
    torch.save(torch.as_tensor(values), buffer)
    with atomic_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def save_pickle(path: Path, values: list[int] | list[str]) -> None:
    """A pickled list, where a layout wants one."""
    with atomic_file(path) as partial:
        partial.write_bytes(pickle.dumps(values))


KEYFRAME_EVERY = 12  # frames: a clip is read in half the time that x264's 250 takes, in files a third larger (LOG)


def save_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """H.264 in MP4, atomically; lossy. frames uint8 (T, H, W, 3) with even sides."""
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        options = {"crf": "15", "g": str(KEYFRAME_EVERY), "x264-params": REPEATABLE}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # with several the bytes depend on the machine
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    with atomic_file(path) as partial:
        partial.write_bytes(buffer.getvalue())


def stacked(episodes: Sequence[RecordedEpisode], field: str) -> np.ndarray:
    """(N, T, ...) of one field; shorter episodes end in zeros."""
    found = [getattr(episode, field) for episode in episodes]
    values = np.zeros((len(found), max(map(len, found)), *found[0].shape[1:]), found[0].dtype)
    for row, each in zip(values, found, strict=True):
        row[: len(each)] = each
    return values
