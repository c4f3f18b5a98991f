"""DINO-WM's `point_maze` layout.

    states.pth (N, T, 4)  actions.pth (N, T, 2)  seq_lengths.pth (N,)  obses/episode_{:03d}.pth (T, H, W, 3) uint8

Source: gaoyuezhou/dino_wm 0a9492f, datasets/point_maze_dset.py (facts: WORLDS section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wm.data.writers.writer import FolderWriter, need_sizes, save_tensor, stacked
from wm.types import RecordedEpisode


class PointMazeWriter(FolderWriter):
    """Frames channel-last, actions unscaled."""

    lacks = "point_maze has no place for: the maze's layout, success, goal"

    def check(self) -> None:
        """Raises UserError for other vectors than the maze's."""
        need_sizes("point_maze", self.facts, actions=2, states=4)

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """One file an episode."""
        save_tensor(self.folder / "obses" / f"episode_{index:03d}.pth", episode.frames)

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The three arrays."""
        save_tensor(self.folder / "seq_lengths.pth", torch.tensor([len(e.states) for e in episodes]))
        save_tensor(self.folder / "actions.pth", stacked(episodes, "actions"))
        save_tensor(self.folder / "states.pth", stacked(episodes, "states"))
