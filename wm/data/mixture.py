"""How many clips of each global batch come from each group: exact shares, carried from batch to batch.

With w the share of a group and B the batch size, its clips in the first t batches are floor(w B t) or ceil(w B t), for any shares,
any number of groups, and any t: a share that is whole in a batch is the same in every one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

from wm.config.schedule import AnySchedule, ConstantSchedule, value_at

_GRID = 10**9  # shares that change over training are multiples of its inverse


class BatchCounts:
    """Clips by group. The same numbers whatever was asked before.

    Args:
        weights: of each group, over training; all zero at no time.
        batch_size: B.
        total_steps: of the whole training, for weights that change.
    """

    def __init__(self, weights: Sequence[AnySchedule], batch_size: int, total_steps: int) -> None:
        self._weights = weights
        self._batch_size = batch_size
        self._total_steps = total_steps
        self._fixed = _fixed_shares(weights)
        self._unit = sum(self._fixed) if self._fixed else _GRID
        # Shares that stay owe nobody anything after so many batches.
        self._period = self._unit // gcd(self._unit, *(batch_size * share for share in self._fixed))
        self._owed = [0] * len(weights)  # in units, after the last batch below
        self._before = [array("q", [0]) for _ in weights]

    def before(self, step: int) -> tuple[int, ...]:
        """Clips of each group in all batches before `step`."""
        rounds, within = divmod(step, self._period) if self._fixed else (0, step)
        known = self._period if rounds else within
        while len(self._before[0]) <= known:
            self._add_batch()
        return tuple(rounds * counts[known] + counts[within] for counts in self._before)

    def _shares(self, step: int) -> Sequence[int]:
        """Of the batch at `step`, in units: their sum is the unit."""
        if self._fixed:
            return self._fixed
        progress = min(step / self._total_steps, 1.0)
        values = [value_at(weight, progress) for weight in self._weights]
        shares = [int(_GRID * value / sum(values)) for value in values]
        shares[shares.index(max(shares))] += _GRID - sum(shares)
        return shares

    def _add_batch(self) -> None:
        shares = self._shares(len(self._before[0]) - 1)
        owed = [debt + self._batch_size * share for debt, share in zip(self._owed, shares, strict=True)]
        taken = [max(0, debt // self._unit) for debt in owed]
        left = self._batch_size - sum(taken)
        if left:
            common = lcm(*(share for share in shares if share))

            def due(group: int) -> int:
                """How long until the next clip of the group is owed whole, in units of the same length for all."""
                missing = (taken[group] + 1) * self._unit - owed[group]
                return missing * common // shares[group] if shares[group] else missing * common

            # The rest to those whose next clip is due first: that never lets another come late (earliest deadline first).
            started = [group for group, debt in enumerate(owed) if debt > taken[group] * self._unit]
            for group in sorted(started, key=due)[: max(left, 0)]:
                taken[group] += 1
            for _ in range(left, 0):  # only shares that change can promise more than there is: the least urgent waits
                taken[max((g for g, count in enumerate(taken) if count), key=due)] -= 1
        self._owed = [debt - count * self._unit for debt, count in zip(owed, taken, strict=True)]
        for counts, count in zip(self._before, taken, strict=True):
            counts.append(counts[-1] + count)


def _fixed_shares(weights: Sequence[AnySchedule]) -> list[int]:
    """Whole numbers in the ratio of weights that never change, as they are written; empty where one does."""
    if not all(isinstance(weight, ConstantSchedule) and not weight.warmup for weight in weights):
        return []
    exact = [Fraction(repr(weight.start)) for weight in weights]
    scale = lcm(*(value.denominator for value in exact))
    whole = [int(value * scale) for value in exact]
    return [value // gcd(*whole) for value in whole]
