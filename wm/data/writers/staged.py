"""Episodes that are recorded but not yet a data set: one file each, whole or absent, so that a killed job goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from wm.data.atomic import atomic_file
from wm.types import RecordedEpisode

_ARRAYS = ("states", "actions", "proprio", "goal", "met", "flat_states", "particles")
THUMBNAILS = 3  # first, middle and last frame


class StagedEpisodes(Sequence[RecordedEpisode]):
    """The staged episodes of a folder, read when they are asked for.

    Args:
        folder: of the data set.
        num_episodes: how many there will be.
        keeps_frames: whether all frames are kept, or three for the contact sheet.
        heard: is told the index of every episode that is read.
    """

    def __init__(
        self, folder: Path, num_episodes: int, keeps_frames: bool, heard: Callable[[int], None] = lambda index: None
    ) -> None:
        self.folder = folder / ".episodes"
        self.num_episodes = num_episodes
        self.keeps_frames = keeps_frames
        self.heard = heard

    def missing(self) -> list[int]:
        """Those that are not there yet."""
        return [index for index in range(self.num_episodes) if not self._file(index).is_file()]

    def save(self, index: int, episode: RecordedEpisode, record: dict[str, Any]) -> None:
        """Atomically.

        Args:
            record: what else is to be remembered of it, as JSON can hold it.
        """
        arrays = {name: getattr(episode, name) for name in _ARRAYS if getattr(episode, name) is not None}
        middle = [0, len(episode.frames) // 2, len(episode.frames) - 1]
        arrays["frames"] = episode.frames if self.keeps_frames else episode.frames[middle]
        if self.keeps_frames:
            arrays |= {f"view.{name}": frames for name, frames in episode.views.items()}
        text = json.dumps(
            {"layout": dict(episode.layout), "record": record, "model_file": episode.model_file, "task": episode.task}
        )
        arrays["text"] = np.frombuffer(text.encode(), np.uint8)
        with atomic_file(self._file(index)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def record(self, index: int) -> dict[str, Any]:
        """What `save` was given."""
        with np.load(self._file(index), allow_pickle=False) as arrays:
            return _text(arrays)["record"]

    def thumbnails(self, index: int) -> np.ndarray:
        """First, middle and last frame, uint8 (3, H, W, 3)."""
        with np.load(self._file(index), allow_pickle=False) as arrays:
            frames = arrays["frames"]
        return frames[[0, len(frames) // 2, len(frames) - 1]]

    def remove(self) -> None:
        """All of them, when the data set is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __len__(self) -> int:
        return self.num_episodes

    @overload
    def __getitem__(self, index: int) -> RecordedEpisode: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedEpisode]: ...

    def __getitem__(self, index: int | slice) -> RecordedEpisode | list[RecordedEpisode]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self.num_episodes))]
        if not 0 <= index < self.num_episodes:
            raise IndexError(index)
        self.heard(index)
        with np.load(self._file(index), allow_pickle=False) as arrays:
            text = _text(arrays)
            found = {name: arrays[name] for name in _ARRAYS if name in arrays}
            views = {name.removeprefix("view."): arrays[name] for name in arrays if name.startswith("view.")}
            frames = arrays["frames"] if self.keeps_frames else np.zeros((0, 0, 0, 3), np.uint8)
        return RecordedEpisode(
            frames=frames,
            layout=text["layout"],
            model_file=text["model_file"],
            task=text.get("task"),
            views=views,
            **found,
        )

    def __iter__(self) -> Iterator[RecordedEpisode]:
        return (self[index] for index in range(self.num_episodes))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def _text(arrays: Any) -> dict[str, Any]:
    return json.loads(arrays["text"].tobytes().decode())
