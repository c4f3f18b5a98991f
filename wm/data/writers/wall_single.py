"""DINO-WM's `wall_single` layout, from recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm.config.errors import UserError
from wm.data.sources.wall_single import WallSingleWriter
from wm.data.writers.writer import FolderWriter, need_one_length, need_sizes, stacked
from wm.types import RecordedEpisode


class WallWriter(FolderWriter):
    """states, actions (N, T, 2), door and wall locations, obses/episode_%03d.pth (T, 3, H, W) uint8."""

    lacks = "wall_single has no place for: frame rate, success, goal"

    def check(self) -> None:
        """Raises UserError for anything but a dot with two actions."""
        need_sizes("wall_single", self.facts, actions=2, states=2)
        need_one_length("wall_single", self.facts)
        if not {"wall_x", "door_y"} <= set(self.facts.layout_names):
            raise UserError(f"--format wall_single: holds a wall and a door, and world '{self.facts.world}' has none")

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """One file an episode."""
        WallSingleWriter(self.folder).write_frames(index, episode.frames)

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The four arrays."""
        walls, doors = (
            np.array([episode.layout[name] for episode in episodes], np.float32) for name in ("wall_x", "door_y")
        )
        WallSingleWriter(self.folder).finish(stacked(episodes, "states"), stacked(episodes, "actions"), walls, doors)
