"""DINO-WM's `deformable` layout, of rope and granular.

    states.pth (N, T, P, 4): x, y, z, inverse mass  actions.pth (N, T, 4)  {:06d}/obses.pth (T, H, W, 3) float, 0..255

Source: gaoyuezhou/dino_wm 0a9492f, datasets/deformable_env_dset.py (facts: WORLDS section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm.config.errors import UserError
from wm.data.writers.writer import FolderWriter, need_one_length, need_sizes, save_tensor, stacked
from wm.types import RecordedEpisode

PARTICLE_SIZE = 4
INVERSE_MASS = 1.0  # of every particle; the simulator here has bodies, and the layout wants a number


class DeformableWriter(FolderWriter):
    """Particles are the world's own, or its state read as x, y, z of one after another."""

    lacks = "deformable has no place for: velocities, success, goal (inverse masses are all 1)"
    bytes_per_value = 4

    def check(self) -> None:
        """Raises UserError for actions that are no pushes."""
        need_sizes("deformable", self.facts, actions=4)
        need_one_length("deformable", self.facts)
        if not self.facts.has_particles and len(self.facts.state_names) % 3:
            raise UserError(f"--format deformable: holds particles, and world '{self.facts.world}' has none")

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """One folder an episode."""
        save_tensor(self.folder / f"{index:06d}" / "obses.pth", episode.frames.astype(np.float32))

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The two arrays."""
        save_tensor(self.folder / "actions.pth", stacked(episodes, "actions"))
        save_tensor(self.folder / "states.pth", np.stack([self._particles(episode) for episode in episodes]))

    def _particles(self, episode: RecordedEpisode) -> np.ndarray:
        places = episode.particles
        if places is None:
            places = episode.states.reshape(len(episode.states), -1, 3)
        elif places.shape[2] == PARTICLE_SIZE:
            return places
        return np.concatenate([places, np.full((*places.shape[:2], 1), INVERSE_MASS, np.float32)], axis=-1)
