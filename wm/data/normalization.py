"""Statistics of a data set's vectors, from training episodes only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Source
from wm.data.labels import LabelGroups
from wm.types import Statistics

MIN_STD = 1e-6  # a constant entry normalises to 0, not to infinity


class Vector(NamedTuple):
    """A vector of some sources."""

    names: tuple[str, ...]
    statistics: Statistics

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        arrays = {key: getattr(self.statistics, key) for key in ("mean", "std", "low", "high")}
        return {
            "names": list(self.names),
            **{key: array.tolist() for key, array in arrays.items() if array is not None},
        }

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Vector:
        """The inverse of `to_json`."""
        arrays = {key: np.asarray(saved[key], np.float32) for key in ("mean", "std", "low", "high") if key in saved}
        return Vector(tuple(saved["names"]), Statistics(**arrays))


@dataclass(frozen=True)
class DataStatistics:
    """What turns raw vectors into normalised ones and back; kept in every checkpoint. None where no source has the vector.

    Args:
        adapters: action vectors other than the model's own, by adapter (wm/data/labels.py).
    """

    action: Statistics | None
    proprio: Statistics | None
    state: Statistics | None
    action_names: tuple[str, ...] = ()
    proprio_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    adapters: Mapping[str, Vector] = field(default_factory=dict[str, Vector])

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        saved: dict[str, Any] = {
            key: None if value is None else Vector(getattr(self, f"{key}_names"), value).to_json()
            for key, value in (("action", self.action), ("proprio", self.proprio), ("state", self.state))
        }
        if self.adapters:
            saved["adapters"] = {name: vector.to_json() for name, vector in self.adapters.items()}
        return saved

    @staticmethod
    def from_json(saved: dict[str, Any]) -> DataStatistics:
        """The inverse of `to_json`."""

        def read(key: str) -> Vector | None:
            return None if saved[key] is None else Vector.from_json(saved[key])

        adapters = {name: Vector.from_json(vector) for name, vector in saved.get("adapters", {}).items()}
        return _joined(read("action"), read("proprio"), read("state"), adapters)


def _joined(
    action: Vector | None, proprio: Vector | None, state: Vector | None, adapters: Mapping[str, Vector]
) -> DataStatistics:
    def names(vector: Vector | None) -> tuple[str, ...]:
        return () if vector is None else vector.names

    def statistics(vector: Vector | None) -> Statistics | None:
        return None if vector is None else vector.statistics

    return DataStatistics(
        statistics(action),
        statistics(proprio),
        statistics(state),
        names(action),
        names(proprio),
        names(state),
        adapters,
    )


def vector_statistics(arrays: Iterable[np.ndarray], added_to_std: float = 0.0) -> Statistics:
    """Mean, standard deviation (n - 1) and range over all rows of all arrays (T, size).

    Args:
        added_to_std: 1e-6 for the reference's deformables.
    """
    rows = np.concatenate(list(arrays)).astype(np.float64)
    if len(rows) < 2:
        raise UserError("statistics need at least two recorded steps")
    std = np.maximum(rows.std(axis=0, ddof=1) + added_to_std, MIN_STD)
    moments = rows.mean(axis=0), std, rows.min(axis=0), rows.max(axis=0)
    return Statistics(*(values.astype(np.float32) for values in moments))


def data_statistics(
    sources: Mapping[str, Source], train: Mapping[str, Sequence[int]], groups: LabelGroups
) -> DataStatistics:
    """Over the training episodes that carry each vector."""

    def over(kind: str, attribute: str, members: Sequence[str]) -> Vector | None:
        episodes = (sources[name].episode(index) for name in members for index in train[name])
        arrays = [values for episode in episodes if (values := getattr(episode, attribute)) is not None]
        if not arrays:
            return None
        return Vector(tuple(getattr(sources[members[0]], f"{kind}_names")), vector_statistics(arrays))

    others = {name: over("action", "actions", members) for name, members in groups.adapters.items()}
    return _joined(
        over("action", "actions", groups.actions),
        over("proprio", "proprio", groups.proprio),
        over("state", "state", groups.state),
        {name: vector for name, vector in others.items() if vector is not None},
    )
