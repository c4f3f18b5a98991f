"""What all sources share: vectors are read at once, frames when an episode is asked for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["action", "proprio", "state"]
_PIECES, _PIECE_BYTES = 8, 4096
KINDS: tuple[Kind, ...] = ("action", "proprio", "state")


def sampled(file: Path) -> bytes:
    """Of a file's size and eight pieces of it, evenly spread: other frames in as many bytes are told apart for 32 KiB of reading."""
    if not file.is_file():
        return b"missing"
    size = file.stat().st_size
    pieces = [str(size).encode()]
    with file.open("rb") as handle:
        for number in range(_PIECES):
            handle.seek(number * max(size - _PIECE_BYTES, 0) // (_PIECES - 1))
            pieces.append(handle.read(_PIECE_BYTES))
    return b"".join(pieces)


class FileEpisode:
    """One episode. Only its own frames are read, and only those that are asked for."""

    def __init__(self, source: FileSource, index: int) -> None:
        self._source = source
        self._index = index
        self.source = source.name
        self.id = f"{source.name}/{source.label(index)}"
        self.length = source.lengths[index]
        self.fps = source.fps
        self.tags: Mapping[str, float] = source.tags[index]

    @property
    def actions(self) -> np.ndarray | None:
        return self._vector("action")

    @property
    def proprio(self) -> np.ndarray | None:
        return self._vector("proprio")

    @property
    def state(self) -> np.ndarray | None:
        return self._vector("state")

    @property
    def task(self) -> str | None:
        """What is to be done, in words; None where the files do not say."""
        return self._source.task(self._index)

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), RGB. Raises IndexError beyond the end, UserError naming a file that cannot be read."""
        rows = np.asarray(indices, np.int64).reshape(-1)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.length:
            raise IndexError(f"frames {rows.min()}..{rows.max()} of {self.length} in {self.id}")
        return self._source.frames(self._index, rows)

    def _vector(self, kind: Kind) -> np.ndarray | None:
        return self._source.vector(kind, self._index) if self._source.labelled else None


class FileSource(ABC):
    """A data set on disk.

    Args:
        labelled: False hides actions, proprio and state.
        camera: whose frames are read; None where cameras have no names.
        beside: what else is on disk and is not read, in words.
        num_val: how many of the last episodes the data set itself holds out; None where it does not say.
        faults: episodes that cannot be used, as far as opening shows it, and why. Their vectors and lengths mean nothing.
    """

    name: str
    fingerprint: str
    labelled: bool
    fps: float
    lengths: Sequence[int]
    tags: Sequence[Mapping[str, float]]  # of each episode
    action_names: tuple[str, ...]
    proprio_names: tuple[str, ...]
    state_names: tuple[str, ...]
    faults: Mapping[int, str]
    beside: tuple[str, ...] = ()
    num_val: int | None = None

    @property
    def camera(self) -> str | None:
        return None

    def __len__(self) -> int:
        return len(self.lengths)

    def episode(self, index: int) -> FileEpisode:
        """Opened lazily. Raises IndexError beyond the last."""
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        return FileEpisode(self, index)

    def task(self, index: int) -> str | None:
        """What is to be done in an episode, in words; None where the files do not say."""
        del index
        return None

    def note_faults(self, where: Path, found: Mapping[int, str]) -> None:
        """Sets `faults`, when all vectors are there: what reading `found`, and vectors that are not finite."""
        faults = dict(found)
        for index in range(len(self) if self.labelled else 0):
            for kind in KINDS:
                values = self.vector(kind, index)
                if index not in faults and values is not None and not np.isfinite(values).all():
                    step = int(np.argmin(np.isfinite(values).all(axis=1)))
                    faults[index] = (
                        f"{where}: {kind} of episode {self.label(index)} holds NaN or infinity at step {step}"
                    )
        self.faults = dict(sorted(faults.items()))

    @abstractmethod
    def frame_file(self, index: int) -> Path:
        """Where an episode's frames are."""

    def origin(self, index: int) -> tuple[Path, str]:
        """A file and what of it is the episode, whatever the source is called and however its folder is reached."""
        return self.frame_file(index), self.label(index)

    @abstractmethod
    def label(self, index: int) -> str:
        """An episode's name within the source."""

    @abstractmethod
    def vector(self, kind: Kind, index: int) -> np.ndarray | None:
        """(length, size) float32 of an episode, or None where the files have none."""

    @abstractmethod
    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), RGB, of an episode; `rows` are within it. Raises UserError naming a file that cannot be read."""
