"""DINO-WM's `point_maze` layout.

    states.pth (N, T, 4)  actions.pth (N, T, 2)  seq_lengths.pth (N,)  obses/episode_{:03d}.pth (T, H, W, 3) uint8

The maze itself is nowhere in it. Source: gaoyuezhou/dino_wm, datasets/point_maze_dset.py (facts: SCIENCE section 1, WORLDS
section 3).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm.config.data import DinoWmSourceConfig
from wm.data.sources.array_source import ArraySource, Recording, load_array, need_files, rows, whole_numbers
from wm.data.sources.tensor_file import load_values, read_frames


class PointMazeSource(ArraySource):
    """A folder in the `point_maze` layout; proprio is the state. Raises UserError for a bad folder."""

    fps = 20.0  # of the original world; the layout records none
    action_names: tuple[str, ...] = ("force_x", "force_y")
    proprio_names: tuple[str, ...] = ("x", "y", "vx", "vy")
    state_names: tuple[str, ...] = ("x", "y", "vx", "vy")

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        need_files(
            folder,
            "point_maze",
            ("states.pth", "actions.pth", "seq_lengths.pth"),
            "obses/episode_000.pth",
            "point_maze",
        )
        files = {key: folder / f"{key}.pth" for key in ("states", "actions", "seq_lengths")}
        states = load_array(files["states"], size=4)
        actions = load_array(files["actions"], size=2, like=states)
        lengths = whole_numbers(load_values(files["seq_lengths"]), str(files["seq_lengths"]), *states.shape[:2])
        lengths = lengths[: config.episodes]
        faults: dict[int, str] = {}
        found = rows(states, lengths, files["states"], faults)
        frames = [folder / "obses" / f"episode_{index:03d}.pth" for index in range(len(lengths))]
        recording = Recording(
            rows(actions, lengths, files["actions"], faults), found, found, lengths, frames, faults=faults
        )
        super().__init__(config, name, folder, recording)

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        return read_frames(file, indices, length)
