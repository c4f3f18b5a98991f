"""Scores of an encoder by held-out episode, so that they can be averaged, compared and resampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class MeanScore:
    """A mean over episodes. values (E,); NaN where an episode says nothing."""

    values: np.ndarray

    def under(self, weights: Float[np.ndarray, "R E"]) -> Float[np.ndarray, " R"]:
        """The score when episode e counts weights[:, e] times; NaN where none that counts says anything."""
        there = np.isfinite(self.values)
        total = weights[:, there].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return weights[:, there] @ self.values[there] / total


@dataclass(frozen=True)
class R2Score:
    """Mean over targets of 1 - mean (s^ - s)^2 / variance of s, the variance over the rows of all episodes.

    It stays that of all when episodes are drawn anew: a target's own in two or three episodes may be next to nothing.

    Args:
        count: (E, S) rows of an episode that have the target.
        errors: (E, S) sum of (s^ - s)^2 over them.
        variance: (S,) positive.
    """

    count: np.ndarray
    errors: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, predicted: list[np.ndarray], truth: list[np.ndarray]) -> R2Score:
        """Of each episode's rows (n, S), NaN in `truth` where a row does not have a target."""
        return cls(
            np.stack([np.isfinite(rows).sum(axis=0) for rows in truth]).astype(float),
            np.stack([np.nansum((p - t) ** 2, axis=0) for p, t in zip(predicted, truth, strict=True)]),
            np.nanvar(np.concatenate(truth), axis=0),
        )

    @property
    def by_target(self) -> Float[np.ndarray, " S"]:
        """R2 of each target."""
        return self._r2(np.ones((1, len(self.count))))[0]

    def under(self, weights: Float[np.ndarray, "R E"]) -> Float[np.ndarray, " R"]:
        """The score when episode e counts weights[:, e] times; a target that none of those has is left out."""
        return np.nanmean(self._r2(weights), axis=1)

    def _r2(self, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 - weights @ self.errors / (weights @ self.count) / self.variance


Score = MeanScore | R2Score


@dataclass(frozen=True)
class ProbeScores:
    """Of one encoder: source -> metric -> score, and levels of chance under the names that they have in `metrics`.

    Args:
        targets: source -> R2 of each target of the state probe.
    """

    scores: Mapping[str, Mapping[str, Score]]
    chance: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, Mapping[str, float]]

    def value(self, source: str, metric: str) -> float:
        """Over all episodes. Raises KeyError where the source has no such score."""
        return _value(self.scores[source][metric])

    @property
    def metrics(self) -> dict[str, float]:
        """Flat: probe/SOURCE/METRIC, and probe/METRIC, the mean over the sources that have it."""
        found: dict[str, float] = {}
        lists: dict[str, list[float]] = {}
        for source, scores in self.scores.items():
            values = {metric: _value(score) for metric, score in scores.items()}
            for metric, value in {**values, **self.chance.get(source, {})}.items():
                found[f"probe/{source}/{metric}"] = value
                lists.setdefault(metric, []).append(value)
        return {**{f"probe/{metric}": float(np.mean(values)) for metric, values in lists.items()}, **found}


def _value(score: Score) -> float:
    return float(score.under(np.ones((1, _episodes(score))))[0])


def _episodes(score: Score) -> int:
    return len(score.values) if isinstance(score, MeanScore) else len(score.count)


def resampled(
    one: ProbeScores, metric: str, sources: list[str], other: ProbeScores | None, num_resamples: int, seed: int
) -> np.ndarray:
    """(num_resamples,) means over sources of a metric of `one`, less that of `other`, held-out episodes drawn anew.

    Episodes of each source are drawn with replacement, the same for both encoders.
    """
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    for source in sources:
        score = one.scores[source][metric]
        count = _episodes(score)
        weights = rng.multinomial(count, np.full(count, 1 / count), num_resamples).astype(float)
        part = score.under(weights)
        parts.append(part if other is None else part - other.scores[source][metric].under(weights))
    return np.mean(parts, axis=0)
