"""Statistics of a data set's vectors, from training episodes only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Episode
from wm.types import Statistics

MIN_STD = 1e-6  # a constant entry normalises to 0, not to infinity


@dataclass(frozen=True)
class DataStatistics:
    """What turns raw vectors into normalised ones and back; kept in every checkpoint. None where no source has the vector."""

    action: Statistics | None
    proprio: Statistics | None
    state: Statistics | None
    action_names: tuple[str, ...] = ()
    proprio_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {
            key: (
                {"names": list(getattr(self, f"{key}_names")), "mean": value.mean.tolist(), "std": value.std.tolist()}
                if value is not None
                else None
            )
            for key, value in (("action", self.action), ("proprio", self.proprio), ("state", self.state))
        }

    @staticmethod
    def from_json(saved: dict[str, Any]) -> DataStatistics:
        """The inverse of `to_json`."""

        def read(key: str) -> Statistics | None:
            part = saved[key]
            if part is None:
                return None
            return Statistics(np.asarray(part["mean"], np.float32), np.asarray(part["std"], np.float32))

        def names(key: str) -> tuple[str, ...]:
            return tuple(saved[key]["names"]) if saved[key] else ()

        return DataStatistics(
            read("action"), read("proprio"), read("state"), names("action"), names("proprio"), names("state")
        )


def vector_statistics(arrays: Iterable[np.ndarray], added_to_std: float = 0.0) -> Statistics:
    """Mean and standard deviation (n - 1) over all rows of all arrays (T, size).

    Args:
        added_to_std: 1e-6 for the reference's deformables.
    """
    rows = np.concatenate(list(arrays)).astype(np.float64)
    if len(rows) < 2:
        raise UserError("statistics need at least two recorded steps")
    std = np.maximum(rows.std(axis=0, ddof=1) + added_to_std, MIN_STD)
    return Statistics(rows.mean(axis=0).astype(np.float32), std.astype(np.float32))


def data_statistics(episodes: Sequence[Episode], names: dict[str, tuple[str, ...]]) -> DataStatistics:
    """Over the training episodes that carry each vector."""

    def over(key: str) -> Statistics | None:
        arrays = [values for episode in episodes if (values := getattr(episode, key)) is not None]
        return vector_statistics(arrays) if arrays else None

    action, proprio, state = over("actions"), over("proprio"), over("state")
    return DataStatistics(action, proprio, state, names["action"], names["proprio"], names["state"])
