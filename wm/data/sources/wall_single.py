"""DINO-WM's `wall_single` layout: read as released, and written the same way.

    states.pth (N, T, 2)  actions.pth (N, T, 2)  door_locations.pth (N, T, .)  wall_locations.pth (N, T, .)
    obses/episode_{:03d}.pth (T, 3, H, W), values 0..255

Source: gaoyuezhou/dino_wm, datasets/wall_dset.py (facts: SCIENCE section 1).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.data.atomic import atomic_file

ARRAYS = ("states", "actions", "door_locations", "wall_locations")
FPS = 10.0  # the layout records none; only videos use it


class WallSingleEpisode:
    """One episode; frames are mapped from disk, never read whole."""

    def __init__(self, source: WallSingleSource, index: int) -> None:
        self._source = source
        self.index = index
        self.source = source.name
        self.id = f"{source.name}/{index:03d}"
        self.length = source.lengths[index]
        self.fps = FPS
        self.tags: Mapping[str, float] = {
            "wall_x": float(source.wall_x[index]),
            "door_y": float(source.door_y[index]),
        }

    @property
    def actions(self) -> np.ndarray | None:
        return self._source.actions[self.index] if self._source.labelled else None

    @property
    def state(self) -> np.ndarray | None:
        return self._source.states[self.index] if self._source.labelled else None

    @property
    def proprio(self) -> np.ndarray | None:
        return self.state

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3). Raises UserError naming the file when it cannot be read."""
        path = self._source.frame_file(self.index)
        frames = _load(path, mmap=True)
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise UserError(f"{path}: expected frames (T, 3, H, W), found {tuple(frames.shape)}")
        if frames.shape[0] < self.length:
            raise UserError(f"{path}: {frames.shape[0]} frames for {self.length} states")
        chosen = frames[torch.as_tensor(np.asarray(indices, dtype=np.int64))]
        if chosen.is_floating_point():
            chosen = chosen.round().clamp(0, 255)
        return chosen.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


class WallSingleSource:
    """A folder in the `wall_single` layout. Raises UserError for a missing folder or another layout."""

    action_names: tuple[str, ...] = ("dx", "dy")
    proprio_names: tuple[str, ...] = ("x", "y")
    state_names: tuple[str, ...] = ("x", "y")

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.labelled = config.labels == "all"
        _check_layout(folder)
        arrays = {key: _load(folder / f"{key}.pth").float() for key in ARRAYS}
        states, actions = arrays["states"], arrays["actions"]
        if states.ndim != 3 or states.shape[-1] != 2:
            raise UserError(f"{folder}/states.pth: expected (episodes, T, 2), found {tuple(states.shape)}")
        if not states.numel():
            raise UserError(f"{folder}/states.pth: holds no episodes ({tuple(states.shape)})")
        if actions.shape != states.shape:
            raise UserError(f"{folder}/actions.pth: {tuple(actions.shape)} does not fit states {tuple(states.shape)}")
        for key in ("door_locations", "wall_locations"):
            if arrays[key].ndim < 2 or arrays[key].shape[:2] != states.shape[:2]:
                raise UserError(
                    f"{folder}/{key}.pth: {tuple(arrays[key].shape)} does not fit states {tuple(states.shape)}"
                )
        count = min(config.episodes or len(states), len(states))
        self.states = states[:count].numpy()
        self.actions = actions[:count].numpy()
        for key, values in (("states", self.states), ("actions", self.actions)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
            if bad.size:
                raise UserError(
                    f"{folder}/{key}.pth: episode {bad[0]} holds NaN or infinity ({bad.size} such episodes)"
                )
        self.wall_x = arrays["wall_locations"].reshape(len(states), -1)[:count, 0].numpy()
        self.door_y = arrays["door_locations"].reshape(len(states), -1)[:count, 0].numpy()
        self.lengths: Sequence[int] = [int(states.shape[1])] * count
        missing = next((i for i in range(count) if not self.frame_file(i).is_file()), None)
        if missing is not None:
            raise UserError(f"{self.frame_file(missing)}: missing, but states.pth has {len(states)} episodes")
        self.fingerprint: str = self._fingerprint()

    def __len__(self) -> int:
        return len(self.lengths)

    def frame_file(self, index: int) -> Path:
        """Where an episode's frames are."""
        return self.folder / "obses" / f"episode_{index:03d}.pth"

    def episode(self, index: int) -> WallSingleEpisode:
        """The episode at `index`, opened lazily."""
        return WallSingleEpisode(self, index)

    def _fingerprint(self) -> str:
        """sha256 of the numbers and of every frame file's name and size."""
        digest = hashlib.sha256(f"{self.labelled}".encode())
        for values in (self.states, self.actions, self.wall_x, self.door_y):
            digest.update(np.ascontiguousarray(values).tobytes())
        for index in range(len(self)):
            file = self.frame_file(index)
            digest.update(f"{file.name}:{file.stat().st_size}".encode())
        return digest.hexdigest()[:16]


class WallSingleWriter:
    """Writes episodes one at a time, and the arrays when all are there.

    Frames go to their own files at once, so that an interrupted job goes on where it stopped; without states.pth the folder is
    not yet a data set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "obses").mkdir(parents=True, exist_ok=True)

    def write_frames(self, index: int, frames: np.ndarray) -> None:
        """uint8 (T, H, W, 3) of one episode."""
        _save(
            self.folder / "obses" / f"episode_{index:03d}.pth",
            torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),
        )

    def finish(self, states: np.ndarray, actions: np.ndarray, wall_x: np.ndarray, door_y: np.ndarray) -> None:
        """states, actions (N, T, 2); wall_x, door_y (N,)."""
        steps = states.shape[1]
        for key, values in (("door_locations", door_y), ("wall_locations", wall_x)):
            _save(self.folder / f"{key}.pth", torch.from_numpy(values).float()[:, None, None].repeat(1, steps, 1))
        _save(self.folder / "actions.pth", torch.from_numpy(actions).float())
        _save(self.folder / "states.pth", torch.from_numpy(states).float())


def _check_layout(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such data folder; `wm data make wall --out {folder}` makes one")
    missing = [f"{key}.pth" for key in ARRAYS if not (folder / f"{key}.pth").is_file()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise UserError(
            f"{folder}: not in the wall_single layout: {', '.join(missing)} missing (found {found}); expected states.pth, "
            f"actions.pth, door_locations.pth, wall_locations.pth and obses/episode_000.pth"
        )


def _load(path: Path, mmap: bool = False) -> Tensor:
    """A tensor file, without unpickling anything but tensors."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path}: unreadable ({reason}); the file is damaged or is not a tensor") from error
    if not isinstance(value, Tensor):
        raise UserError(f"{path}: expected a tensor, found {type(value).__name__}")
    return value


def _save(path: Path, value: Tensor) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with atomic_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())
