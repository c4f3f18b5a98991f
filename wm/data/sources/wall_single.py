"""DINO-WM's `wall_single` layout: read as released, and written the same way.

    states.pth (N, T, 2)  actions.pth (N, T, 2)  door_locations.pth (N, T, .)  wall_locations.pth (N, T, .)
    obses/episode_{:03d}.pth (T, 3, H, W), values 0..255

Source: gaoyuezhou/dino_wm, datasets/wall_dset.py (facts: SCIENCE section 1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wm.config.data import DinoWmSourceConfig
from wm.config.errors import UserError
from wm.data.sources.array_source import ArraySource, Recording, load_array, need_files, rows
from wm.data.sources.tensor_file import load_tensor, read_frames, save_tensor


class WallSingleSource(ArraySource):
    """A folder in the `wall_single` layout. Raises UserError for a missing folder or another layout."""

    fps = 10.0  # the layout records none; only videos use it
    action_names: tuple[str, ...] = ("dx", "dy")
    proprio_names: tuple[str, ...] = ("x", "y")
    state_names: tuple[str, ...] = ("x", "y")

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        keys = ("states", "actions", "door_locations", "wall_locations")
        files = {key: folder / f"{key}.pth" for key in keys}
        need_files(folder, "wall_single", [file.name for file in files.values()], "obses/episode_000.pth", "wall")
        states = load_array(files["states"], size=2)
        actions = load_array(files["actions"], size=2, like=states)
        count = min(config.episodes or len(states), len(states))
        lengths = [states.shape[1]] * count
        faults: dict[int, str] = {}
        self.states = rows(states, lengths, files["states"], faults)
        self.actions = rows(actions, lengths, files["actions"], faults)
        places: list[np.ndarray] = []
        for key in ("wall_locations", "door_locations"):
            values = load_tensor(files[key])
            if values.ndim < 2 or values.shape[:2] != states.shape[:2]:
                raise UserError(f"{files[key]}: {tuple(values.shape)} does not fit states {tuple(states.shape)}")
            places.append(values.float().reshape(len(states), -1)[:count, 0].numpy())
        self.wall_x, self.door_y = places
        tags = [{"wall_x": float(x), "door_y": float(y)} for x, y in zip(*places, strict=True)]
        frames = [_frame_file(folder, index) for index in range(count)]
        recording = Recording(self.actions, self.states, self.states, lengths, frames, tags, faults)
        super().__init__(config, name, folder, recording)

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        return read_frames(file, indices, length, channels_first=True)


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
        save_tensor(_frame_file(self.folder, index), torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())

    def finish(self, states: np.ndarray, actions: np.ndarray, wall_x: np.ndarray, door_y: np.ndarray) -> None:
        """states, actions (N, T, 2); wall_x, door_y (N,)."""
        steps = states.shape[1]
        for key, values in (("door_locations", door_y), ("wall_locations", wall_x)):
            save_tensor(self.folder / f"{key}.pth", torch.from_numpy(values).float()[:, None, None].repeat(1, steps, 1))
        save_tensor(self.folder / "actions.pth", torch.from_numpy(actions).float())
        save_tensor(self.folder / "states.pth", torch.from_numpy(states).float())


def _frame_file(folder: Path, index: int) -> Path:
    return folder / "obses" / f"episode_{index:03d}.pth"
