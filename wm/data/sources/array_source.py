"""What DINO-WM's layouts share: vectors in arrays (N, T, .), padded to the longest episode, and a file of frames an episode."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.data.sources.file_source import FileSource, Kind, sampled
from wm.data.sources.tensor_file import load_tensor, need_plain
from wm.data.sources.video_file import VideoFile

Vectors = np.ndarray | Sequence[np.ndarray]  # (N, T, size), or (T, size) of each episode


@dataclass(frozen=True)
class Recording:
    """Every episode of a folder, but for its frames.

    Args:
        actions, states, proprio: float32; rows from an episode's length on are padding.
        lengths: steps of each.
        files: where the frames of each are.
        tags: of each; empty where the layout has none.
        faults: episodes that cannot be used, and why.
    """

    actions: Vectors
    states: Vectors
    proprio: Vectors
    lengths: Sequence[int]
    files: Sequence[Path]
    tags: Sequence[Mapping[str, float]] = field(default_factory=tuple)
    faults: Mapping[int, str] = field(default_factory=dict)


class ArraySource(FileSource):
    """A folder in one of the layouts.

    Args:
        recording: what was read of it.
    """

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path, recording: Recording) -> None:
        self.name = name
        self.folder = folder
        self.labelled = config.labels == "all"
        self.recording = recording
        self.lengths: Sequence[int] = recording.lengths
        self.tags: Sequence[Mapping[str, float]] = recording.tags or [{}] * len(recording.lengths)
        absent = {
            index: f"{file}: missing, but {folder} has states of {len(self)} episodes"
            for index, file in enumerate(recording.files)
            if not file.is_file()
        }
        self.note_faults(folder, {**recording.faults, **absent})
        self.fingerprint: str = self._fingerprint(config)

    @abstractmethod
    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        """uint8 (n, H, W, 3) of some frames of an episode of `length` steps, RGB."""

    def label(self, index: int) -> str:
        return f"{index:03d}"

    def frame_file(self, index: int) -> Path:
        return self.recording.files[index]

    def origin(self, index: int) -> tuple[Path, str]:
        return self.frame_file(index), ""

    def vector(self, kind: Kind, index: int) -> np.ndarray:
        recording = self.recording
        values = {"action": recording.actions, "proprio": recording.proprio, "state": recording.states}[kind]
        return values[index][: self.lengths[index]]

    def frames(self, index: int, rows: np.ndarray) -> np.ndarray:
        return self.read_frames(self.recording.files[index], rows, self.lengths[index])

    def _fingerprint(self, config: DinoWmSourceConfig) -> str:
        """sha256 of the numbers, and of every frame file's name, size and a part of its content."""
        recording, names = self.recording, (self.action_names, self.proprio_names, self.state_names)
        digest = hashlib.sha256(f"{config.labels}/{config.colors}/{names}".encode())
        for index, (length, file) in enumerate(zip(recording.lengths, recording.files, strict=True)):
            for values in (recording.states, recording.actions, recording.proprio):
                digest.update(np.ascontiguousarray(values[index][:length]).tobytes())
            tags = sorted(recording.tags[index].items()) if recording.tags else []
            digest.update(f"{length}:{tags}:{file.name}:".encode())
            digest.update(sampled(file))
        return digest.hexdigest()[:16]


def need_files(folder: Path, layout: str, names: Sequence[str], and_more: str, world: str | None = None) -> None:
    """Raises UserError, saying what is there instead, when a folder lacks the files of a layout.

    Args:
        and_more: the rest of what the layout has, in words.
        world: whose demonstrations are written in this layout.
    """
    if not folder.is_dir():
        hint = "" if world is None else f"; `wm data make {world} --out {folder}` makes one"
        raise UserError(f"{folder}: no such data folder{hint}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise UserError(
            f"{folder}: not in the {layout} layout: {', '.join(missing)} missing (found {found}); expected "
            f"{', '.join(names)} and {and_more}"
        )


def load_array(file: Path, size: int | None = None, like: Tensor | None = None, ndim: int = 3) -> Tensor:
    """An array (N, T, ...) of a .pth file. Raises UserError for another shape.

    Args:
        size: of the last axis, where the layout says so.
        like: another array of as many episodes and steps.
    """
    values = load_tensor(file)
    shape = tuple(values.shape)
    if values.is_complex():
        raise UserError(f"{file}: complex numbers, expected real ones")
    if values.ndim != ndim or (size is not None and shape[-1] != size):
        axes = ["episodes", "T", *(["P"] if ndim == 4 else []), "size" if size is None else str(size)]
        raise UserError(f"{file}: expected ({', '.join(axes)}), found {shape}")
    if not values.numel():
        raise UserError(f"{file}: holds no episodes {shape}")
    if like is not None and shape[:2] != tuple(like.shape[:2]):
        raise UserError(f"{file}: {shape} does not fit states {tuple(like.shape)}")
    return values


def rows(values: Tensor, lengths: Sequence[int], file: Path, faults: dict[int, str]) -> np.ndarray:
    """The first episodes of an array, one for each length: (n, T, size) float32, all axes after the second made one.

    Args:
        faults: gets the episodes that hold NaN or infinity within their lengths; padding may.
    """
    found = values[: len(lengths)].to(torch.float32).flatten(2).numpy()
    is_padding = np.arange(found.shape[1]) >= np.array(lengths)[:, None]
    for bad in np.flatnonzero(~(np.isfinite(found).all(axis=2) | is_padding).all(axis=1)):
        faults.setdefault(int(bad), f"{file}: episode {bad} holds NaN or infinity")
    return found


def whole_numbers(values: Any, where: str, num_episodes: int, longest: int) -> list[int]:
    """Lengths of episodes from a list, an array or a tensor. Raises UserError unless they are within 1..longest, one each."""
    expected = f"expected {num_episodes} whole numbers within 1..{longest}, one an episode"
    if isinstance(values, Tensor):
        values = need_plain(values, where).numpy()
    if not isinstance(values, np.ndarray | list | tuple):
        raise UserError(f"{where}: {expected}, found a {type(values).__name__}")
    try:
        lengths = np.array([int(each) for each in cast(Sequence[Any], values)])
        exact = np.array([float(each) for each in cast(Sequence[Any], values)])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: {expected} ({error})") from error
    if lengths.shape != (num_episodes,):
        raise UserError(f"{where}: {expected}, found {len(lengths)}")
    if (lengths < 1).any() or (lengths > longest).any() or (lengths != exact).any():
        raise UserError(f"{where}: {expected}, found {exact.min():g}..{exact.max():g}")
    return lengths.tolist()


def read_video(file: Path, indices: np.ndarray, length: int) -> np.ndarray:
    """uint8 (n, H, W, 3) of some frames. Raises UserError naming the file: damaged, or fewer frames than steps."""
    video = VideoFile(file)
    if len(video) < length:
        raise UserError(f"{file}: {len(video)} frames for {length} states")
    return video.frames(indices)


def numbered(word: str, size: int) -> tuple[str, ...]:
    """Names of a vector's entries where a layout has none."""
    return tuple(f"{word}_{index}" for index in range(size))
