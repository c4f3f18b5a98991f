"""Means of what is logged, over the steps since the last row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wm.losses.ranks import current_ranks


class Meter:
    """Adds up on the device; only `take` waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One step's values, the same names every time."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def take(self) -> dict[str, float]:
        """The means over steps and ranks; starts anew."""
        totals = current_ranks().mean(torch.stack([value.float() for value in self._sums.values()]))
        means = {name: total / self._steps for name, total in zip(self._sums, totals.tolist(), strict=True)}
        self._sums, self._steps = {}, 0
        return means
