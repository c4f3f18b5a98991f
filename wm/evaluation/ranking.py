"""Whether a cost puts things in the right order: rank correlation, the place of the right plan, a threshold that means success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def spearman(cost: ArrayLike, distance: ArrayLike) -> float:
    """Rank correlation of costs with true distances, (N,) each; ties have their mean rank, an infinite cost the last one.

    0 where the cost is the same everywhere: it orders nothing. NaN where the distance is, or below three rows: there is no order.
    """
    costs, distances = _vector(cost), _vector(distance)
    if len(costs) != len(distances):
        raise ValueError(f"{len(costs)} costs and {len(distances)} distances")
    if len(costs) < 3 or np.ptp(distances) == 0:
        return float("nan")
    first, second = (rankdata(values) - (len(costs) + 1) / 2 for values in (costs, distances))
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale > 0 else 0.0


def share_cheaper(costs: ArrayLike, right: float) -> float:
    """Share of plans (N,) that cost less than the right one, ties half; 0: it is found first, 0.5: as good as a guess."""
    values = _vector(costs)
    return float(((values < right) + 0.5 * (values == right)).mean())


@dataclass(frozen=True)
class LatentJudge:
    """A cost up to `threshold` counts as success.

    Args:
        accuracy: balanced (mean of the shares of successes and of others that are judged rightly), each problem by the threshold
            of the others; 0.5 is a guess.
        num_frames, num_met: what it was set on.
    """

    threshold: float
    accuracy: float
    num_frames: int
    num_met: int

    def met(self, costs: ArrayLike) -> bool:
        """Whether one of them counts as success, as a problem is solved by one of its plans."""
        return bool((_vector(costs) <= self.threshold).any())


def latent_judge(costs: Sequence[ArrayLike], met: Sequence[ArrayLike]) -> LatentJudge | None:
    """The threshold that tells success best on true frames, by balanced accuracy; a list entry a problem, (T,) each.

    None with one problem, or where the frames of all problems but one hold no success, or nothing else.
    """
    per_cost, per_met = [_vector(each) for each in costs], [np.asarray(each, bool) for each in met]
    if len(per_cost) < 2:
        return None
    everything = np.concatenate(per_cost), np.concatenate(per_met)
    right = np.zeros(2)
    for left_out in range(len(per_cost)):
        others = [number for number in range(len(per_cost)) if number != left_out]
        threshold = _best_threshold(
            np.concatenate([per_cost[n] for n in others]), np.concatenate([per_met[n] for n in others])
        )
        if threshold is None:
            return None
        judged, truth = per_cost[left_out] <= threshold, per_met[left_out]
        right += (judged & truth).sum(), (~judged & ~truth).sum()
    threshold = _best_threshold(*everything)
    assert threshold is not None  # there is one even without one of the problems
    num_met = int(everything[1].sum())
    accuracy = (right / (num_met, len(everything[1]) - num_met)).mean()
    return LatentJudge(threshold, float(accuracy), len(everything[0]), num_met)


@dataclass(frozen=True)
class Agreement:
    """Problems by imagined and real success."""

    both: int
    imagined_only: int
    real_only: int
    neither: int

    @classmethod
    def of(cls, imagined: Sequence[bool], real: Sequence[bool]) -> Agreement:
        """Of the same problems in the same order."""
        pairs = list(zip(imagined, real, strict=True))
        return cls(*(pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))


def _best_threshold(costs: NDArray[np.float64], met: NDArray[np.bool_]) -> float | None:
    """Midway between the two costs that it parts; of equally good ones the lowest."""
    if met.all() or not met.any():
        return None
    order = np.argsort(costs, kind="stable")
    ordered, successes = costs[order], met[order]
    hits, alarms = np.cumsum(successes) / met.sum(), np.cumsum(~successes) / (~met).sum()
    ends = np.append(np.diff(ordered) > 0, True)  # equal costs are judged alike
    best = int(np.argmax(np.where(ends, hits - alarms, -np.inf)))
    above = ordered[best + 1] if best + 1 < len(ordered) else ordered[best]
    return float((ordered[best] + above) / 2) if np.isfinite(above) else float(ordered[best])


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(values, np.float64)
    if vector.ndim != 1:
        raise ValueError(f"expected one number a row, got shape {vector.shape}")
    return np.where(np.isnan(vector), np.inf, vector)
