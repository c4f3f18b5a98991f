"""The order of training clips: a pure function of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from wm.config.errors import UserError
from wm.config.schedule import AnySchedule, ConstantSchedule
from wm.data.clip_index import ClipIndex
from wm.data.mixture import BatchCounts
from wm.types import ClipRef


class ClipSchedule:
    """Global batches, mixed from pools of clips in exact shares; nothing depends on workers or resumes.

    Of each pool every clip comes once before any comes twice, in a new order each round.

    Args:
        pools: the training clips by group; a single one is named "".
        batch_size: clips of a global batch.
        steps_per_epoch: None means as many whole batches as there are clips.
        weights: of the pools, by name; none are equal ones.
        epochs: length of the training, for weights that change over it.
    """

    def __init__(
        self,
        pools: Mapping[str, ClipIndex],
        batch_size: int,
        steps_per_epoch: int | None,
        seed: int,
        weights: Mapping[str, AnySchedule] | None = None,
        epochs: int = 1,
    ) -> None:
        clips = sum(map(len, pools.values()))
        if clips < batch_size:
            index = next(iter(pools.values()))
            raise UserError(
                f"train.batch_size: {batch_size} is more than the {clips} training clips "
                f"({index.num_frames} frames, frameskip {index.frameskip})"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch or clips // batch_size
        self._pools = [_Pool(index, name, seed) for name, index in pools.items()]
        chosen = [ConstantSchedule() if weights is None else weights[name] for name in pools]
        self._counts = BatchCounts(chosen, batch_size, epochs * self.steps_per_epoch)

    def batch(self, epoch: int, step: int) -> Sequence[ClipRef]:
        """The clips of one global batch."""
        return self.batch_at(epoch * self.steps_per_epoch + step)

    def batch_at(self, global_step: int) -> Sequence[ClipRef]:
        """The same, by steps since the start of training."""
        begins, ends = self._counts.before(global_step), self._counts.before(global_step + 1)
        refs: list[ClipRef] = []
        for pool, begin, end in zip(self._pools, begins, ends, strict=True):
            refs += [pool.clip(position) for position in range(begin, end)]
        # Pool after pool, from where the first pool ended in the batch before: so the ranks, which take every n-th clip, share
        # each pool as evenly as can be in every batch, and take turns where it does not come out even.
        turned = begins[0] % self.batch_size
        return refs[-turned:] + refs[:-turned] if turned else refs

    def shard(self, global_step: int, rank: int, num_ranks: int) -> Sequence[ClipRef]:
        """One rank's equal part of a global batch."""
        return self.batch_at(global_step)[rank::num_ranks]


class _Pool:
    """The clips of a group in an endless order."""

    def __init__(self, index: ClipIndex, name: str, seed: int) -> None:
        self._index = index
        self._key = [seed, *name.encode()]
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, round_number: int) -> np.ndarray:
        seed, *name = self._key
        return np.random.default_rng([seed, round_number, *name]).permutation(len(self._index))

    def clip(self, position: int) -> ClipRef:
        round_number, place = divmod(position, len(self._index))
        return self._index[int(self._order(round_number)[place])]
