"""Which clips exist: the split of episodes and every start that fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from wm.types import ClipRef


def split_episodes(num_episodes: int, val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """(train, held-out) by one permutation of a seeded torch generator; the first int((1 - f) n) train.

    Source: gaoyuezhou/dino_wm, datasets/traj_dset.py (split 0.9, seed 42).
    """
    order = torch.randperm(num_episodes, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = int((1 - val_fraction) * num_episodes + 1e-9)
    return order[:cut], order[cut:]


def split_last(num_episodes: int, held_out: int) -> tuple[list[int], list[int]]:
    """(train, held-out): the last `held_out` episodes are held out, none trains when there are no more than those."""
    cut = max(num_episodes - held_out, 0)
    return list(range(cut)), list(range(cut, num_episodes))


class ClipIndex:
    """Every clip of some episodes, in episode order: start in range(length - num_frames * frameskip + 1).

    Args:
        episodes: (source, episode, length) of each.
        whole_actions: ask for the F actions after the last frame too, as training does; a latent evaluation needs the last
            frame only.
    """

    def __init__(
        self, episodes: Sequence[tuple[str, int, int]], num_frames: int, frameskip: int, whole_actions: bool = True
    ) -> None:
        self.num_frames = num_frames
        self.frameskip = frameskip
        self._episodes = list(episodes)
        self.window = num_frames * frameskip if whole_actions else (num_frames - 1) * frameskip + 1
        counts = [max(0, length - self.window + 1) for _, _, length in self._episodes]
        self._ends = np.cumsum(counts) if counts else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ClipRef:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        row = int(np.searchsorted(self._ends, index, side="right"))
        source, episode, _ = self._episodes[row]
        start = index - (int(self._ends[row - 1]) if row else 0)
        return ClipRef(source, episode, start, self.frameskip, self.num_frames)

    def spread(self, count: int, seed: int) -> list[ClipRef]:
        """`count` different clips (all when there are fewer), drawn with a seed, in index order."""
        total = len(self)
        chosen = np.random.default_rng(seed).permutation(total)[: min(count, total)]
        return [self[int(i)] for i in np.sort(chosen)]
