"""DINO-WM's `pusht_noise` layout.

    {train,val}/ states.pth (N, T, 5)  velocities.pth (N, T, 2)  rel_actions.pth, abs_actions.pth (N, T, 2), times 100
    {train,val}/ seq_lengths.pkl  shapes.pkl  obses/episode_{:03d}.mp4

Source: gaoyuezhou/dino_wm 0a9492f, datasets/pusht_dset.py (facts: WORLDS section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm.data.sources.pusht_noise import ACTION_SCALE, SHAPES
from wm.data.writers.writer import (
    DatasetFacts,
    FolderWriter,
    need_even_sides,
    need_sizes,
    save_pickle,
    save_tensor,
    save_video,
    stacked,
)
from wm.types import RecordedEpisode

VAL_FRACTION = 0.1


class PushTWriter(FolderWriter):
    """The last tenth of the episodes is `val`, where nobody said another number.

    Absolute actions are the agent's place plus 100 times the relative ones.
    """

    marker = "train/states.pth"
    lacks = "pusht_noise has no place for: success, goal, exact frames (its videos are lossy)"

    def __init__(self, folder: Path, facts: DatasetFacts) -> None:
        super().__init__(folder, facts)
        self.num_val = facts.num_val or max(1, round(VAL_FRACTION * facts.episodes))

    def check(self) -> None:
        """Raises UserError for other vectors than PushT's, or a frame that the video codec cannot hold."""
        need_sizes("pusht_noise", self.facts, actions=2, states=7)
        need_even_sides(self.facts)

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """One video an episode, numbered within its folder."""
        num_train = self.facts.episodes - self.num_val
        part, number = ("train", index) if index < num_train else ("val", index - num_train)
        save_video(self.folder / part / "obses" / f"episode_{number:03d}.mp4", episode.frames, self.facts.fps)

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """The arrays of val, then those of train."""
        num_train = self.facts.episodes - self.num_val
        self._finish(self.folder / "val", [episodes[i] for i in range(num_train, len(episodes))])
        self._finish(self.folder / "train", [episodes[i] for i in range(num_train)])

    def _finish(self, folder: Path, episodes: Sequence[RecordedEpisode]) -> None:
        states, actions = stacked(episodes, "states"), stacked(episodes, "actions")
        save_pickle(folder / "seq_lengths.pkl", [len(episode.states) for episode in episodes])
        if "shape" in self.facts.layout_names:
            save_pickle(folder / "shapes.pkl", [SHAPES[int(episode.layout["shape"])] for episode in episodes])
        save_tensor(folder / "velocities.pth", states[..., 5:7].copy())
        save_tensor(folder / "rel_actions.pth", np.float32(ACTION_SCALE) * actions)
        save_tensor(folder / "abs_actions.pth", states[..., :2] + np.float32(ACTION_SCALE) * actions)
        save_tensor(folder / "states.pth", states[..., :5].copy())
