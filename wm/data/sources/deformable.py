"""DINO-WM's `deformable` layout, of rope and granular: the folder of one of the two.

    states.pth (N, T, P, 4): x, y, z, inverse mass of each particle  actions.pth (N, T, 4)
    {:06d}/obses.pth (T, H, W, 3) float, 0..255

Source: gaoyuezhou/dino_wm, datasets/deformable_env_dset.py (facts: SCIENCE section 1, WORLDS section 4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm.config.data import DinoWmSourceConfig
from wm.data.sources.array_source import ArraySource, Recording, load_array, need_files, rows
from wm.data.sources.tensor_file import read_frames


class DeformableSource(ArraySource):
    """A folder in the `deformable` layout. Raises UserError for a bad folder.

    The state is every particle's four numbers, one particle after another. Proprio is one zero, as in the reference and in
    the worlds: a model trained there has weights for it, and normalised (its standard deviation is floored) it stays zero.
    """

    fps = 1.0  # a step is a whole push
    action_names: tuple[str, ...] = ("x_start", "z_start", "x_end", "z_end")
    proprio_names: tuple[str, ...] = ("none",)

    def __init__(self, config: DinoWmSourceConfig, name: str, folder: Path) -> None:
        files = {key: folder / f"{key}.pth" for key in ("states", "actions")}
        need_files(
            folder, "deformable", ("states.pth", "actions.pth"), "000000/obses.pth (the folder of one object)", "rope"
        )
        states = load_array(files["states"], size=4, ndim=4)
        actions = load_array(files["actions"], size=4, like=states)
        self.state_names: tuple[str, ...] = particle_names(states.shape[2])
        lengths = [states.shape[1]] * min(config.episodes or len(states), len(states))
        faults: dict[int, str] = {}
        recording = Recording(
            actions=rows(actions, lengths, files["actions"], faults),
            states=rows(states, lengths, files["states"], faults),
            proprio=np.zeros((len(lengths), states.shape[1], 1), np.float32),
            lengths=lengths,
            files=[folder / f"{index:06d}" / "obses.pth" for index in range(len(lengths))],
            faults=faults,
        )
        super().__init__(config, name, folder, recording)

    def read_frames(self, file: Path, indices: np.ndarray, length: int) -> np.ndarray:
        return read_frames(file, indices, length)


def particle_names(count: int) -> tuple[str, ...]:
    """Of the state: places as the worlds name them, and inverse masses."""
    return tuple(f"{part}{particle}" for particle in range(count) for part in ("x", "y", "z", "inverse_mass"))
