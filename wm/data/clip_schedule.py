"""The order of training clips: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from wm.config.errors import UserError
from wm.data.clip_index import ClipIndex
from wm.types import ClipRef


class ClipSchedule:
    """Global batches. Every clip once before any twice; a new order each round; nothing depends on workers or resumes.

    Args:
        index: the training clips.
        batch_size: clips of a global batch.
        steps_per_epoch: None means as many whole batches as the clips give.
    """

    def __init__(self, index: ClipIndex, batch_size: int, steps_per_epoch: int | None, seed: int) -> None:
        if len(index) < batch_size:
            raise UserError(
                f"train.batch_size: {batch_size} is more than the {len(index)} training clips "
                f"({index.num_frames} frames, frameskip {index.frameskip})"
            )
        self.index = index
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch or len(index) // batch_size
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, round_number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, round_number]).permutation(len(self.index))

    def batch(self, epoch: int, step: int) -> Sequence[ClipRef]:
        """The clips of one global batch."""
        return self.batch_at(epoch * self.steps_per_epoch + step)

    def batch_at(self, global_step: int) -> Sequence[ClipRef]:
        """The same, by steps since the start of training."""
        first = global_step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        rounds, places = positions // len(self.index), positions % len(self.index)
        return [self.index[int(self._order(int(r))[p])] for r, p in zip(rounds, places, strict=True)]

    def shard(self, global_step: int, rank: int, num_ranks: int) -> Sequence[ClipRef]:
        """One rank's equal part of a global batch."""
        return self.batch_at(global_step)[rank::num_ranks]
