"""How good a frozen encoder's latents are for a world model, on pictures prepared once.

Shape legend: n pictures, H W their sides, P tokens of D channels, L = P D, T pictures of an episode, G goals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from torch import Tensor

from wm.contracts import Encoder
from wm.evaluation.drawn_frames import DrawnFrames
from wm.evaluation.gram_ridge import GramRidge
from wm.evaluation.probe_frames import HeldOutFrames, ProbeFrames, SourceFrames
from wm.evaluation.probe_scores import MeanScore, ProbeScores, R2Score, Score

Tokens = Callable[[Tensor], Tensor]  # uint8 (n, H, W, 3) -> float32 (n, P, D)

CHUNK = 64  # pictures an encoder is shown at once


def tokens_of(encoder: Encoder) -> Tokens:
    """An encoder of the platform as `Tokens`, each picture alone."""
    return lambda frames: encoder.encode(frames[:, None])[:, 0]


def probe_metrics(frames: ProbeFrames, tokens: Tokens) -> dict[str, float]:
    """The probes of an encoder as flat metrics, `wm.evaluation.metric_names` defines each."""
    return probe_encoder(frames, tokens).metrics


def probe_encoder(frames: ProbeFrames, tokens: Tokens) -> ProbeScores:
    """The probes of an encoder, by source and held-out episode."""
    scores: dict[str, Mapping[str, Score]] = {}
    chance: dict[str, Mapping[str, float]] = {}
    targets: dict[str, Mapping[str, float]] = {}
    for source in frames.sources:
        found = _SourceProbe(source, tokens, frames.config.time_window)
        scores[source.name], chance[source.name], targets[source.name] = found.scores, found.chance, found.targets
    return ProbeScores(scores, chance, targets)


def latents_of(tokens: Tokens, frames: np.ndarray) -> np.ndarray:
    """float32 (n, L) of uint8 (n, H, W, 3), a chunk at a time, without gradient."""
    with torch.no_grad():
        parts = [
            tokens(torch.from_numpy(frames[start : start + CHUNK])).detach().float().flatten(1).cpu().numpy()
            for start in range(0, len(frames), CHUNK)
        ]
    return np.concatenate(parts)


class _SourceProbe:
    """All probes of one source."""

    def __init__(self, source: SourceFrames, tokens: Tokens, window: int) -> None:
        self.scores: dict[str, Score] = {}
        self.chance: dict[str, float] = {}
        self.targets: dict[str, float] = {}
        tested = [latents_of(tokens, episode.frames) for episode in source.episodes]
        if source.fit_targets is not None:
            fitted = GramRidge(latents_of(tokens, source.fit_frames), source.fit_targets, source.fit_groups)
            truth = [episode.targets for episode in source.episodes if episode.targets is not None]
            r2 = R2Score.of([fitted.predict(latents) for latents in tested], truth)
            self.scores["state_r2"] = r2
            self.targets = dict(zip(source.target_names, r2.by_target.tolist(), strict=True))
        goal = [_goal_rank(*each) for each in zip(source.episodes, tested, strict=True)]
        self._keep("goal_rank", goal)
        pairs = [time_neighbour(*each, window) for each in zip(source.episodes, tested, strict=True)]
        self._keep("time_neighbour", *zip(*pairs, strict=True))
        self._drawn(source, tokens)

    def _drawn(self, source: SourceFrames, tokens: Tokens) -> None:
        fresh = [
            rank_correlation(latents_of(tokens, each.fresh), each.fresh_goals, each.fresh_distances)
            for each in source.drawn
            if len(each.fresh)
        ]
        self._keep("goal_rank_fresh", fresh)
        found = [shift_neighbours(each, tokens) for each in source.drawn]
        shifts = sorted({shift for each in found for shift in each})
        nothing = (np.nan, np.nan)
        for shift in shifts:
            pairs = [each.get(shift, nothing) for each in found]
            self._keep(f"shift_neighbour_{shift}", [hit for hit, _ in pairs])
        if shifts:
            means = [np.mean(list(each.values()), axis=0) if each else nothing for each in found]
            self._keep("shift_neighbour", *zip(*means, strict=True))

    def _keep(self, metric: str, values: object, chance: object = None) -> None:
        """A score, where an episode has one, beside its level of chance."""
        found = np.array(values, dtype=float)
        if not np.isfinite(found).any():
            return
        self.scores[metric] = MeanScore(found)
        if chance is not None:
            self.chance[f"{metric}_chance"] = float(np.nanmean(np.array(chance, dtype=float)))


def rank_correlation(latents: np.ndarray, goals: np.ndarray, distances: np.ndarray) -> float:
    """Mean over goals of Spearman's correlation of mean (z - z_goal)^2, planning's objective, with the true distance.

    Args:
        latents: (T, L).
        goals: (G,) which of them are goals.
        distances: (G, T); NaN where a picture does not count. A goal that has the same distance everywhere does not.

    Returns:
        NaN where no goal counts. Latents that are all as far have correlation 0.
    """
    found: list[float] = []
    for goal, true in zip(goals, distances, strict=True):
        there = np.isfinite(true)
        if there.sum() < 3 or np.ptp(true[there]) == 0:
            continue
        apart = cdist(latents[there], latents[goal, None], "sqeuclidean")[:, 0]
        found.append(_pearson(rankdata(apart), rankdata(true[there])))
    return float(np.mean(found)) if found else float("nan")


def time_neighbour(episode: HeldOutFrames, latents: np.ndarray, window: int) -> tuple[float, float]:
    """Share of an episode's pictures whose nearest other is among the `window` pictures before and after; and by chance.

    Pictures that are the same to the pixel are one, seen at several times: it is as near as the nearest of them.
    """
    looks, order = episode.looks, np.arange(len(latents))
    one = np.unique(looks, return_index=True)[1]  # of each look
    times = [order[looks == looks[index]] for index in one]
    apart = np.array([[np.abs(a[:, None] - b).min() for b in times] for a in times])
    return _hits(latents[one], latents[one], (apart <= window) & (apart > 0), apart > 0)


def shift_neighbours(drawn: DrawnFrames, tokens: Tokens) -> dict[str, tuple[float, float]]:
    """By shift: share of shifted pictures whose nearest plain one of the episode shows the same state; and by chance."""
    if len(drawn.plain) < 2:
        return {}
    plain = latents_of(tokens, drawn.plain)
    every = np.arange(len(plain))
    return {
        shift: _hits(latents_of(tokens, frames), plain, kept[:, None] == every, np.ones((len(kept), len(every)), bool))
        for shift, (kept, frames) in drawn.shifted.items()
    }


def _goal_rank(episode: HeldOutFrames, latents: np.ndarray) -> float:
    return float("nan") if episode.distances is None else rank_correlation(latents, episode.goals, episode.distances)


def _hits(asked: np.ndarray, among: np.ndarray, right: np.ndarray, allowed: np.ndarray) -> tuple[float, float]:
    """Share of rows whose nearest allowed one is right (a tie counts by its share), and the same for one drawn blindly."""
    able = allowed.any(axis=1)
    if not able.any():
        return float("nan"), float("nan")
    apart = np.where(allowed, cdist(asked, among, "sqeuclidean"), np.inf)[able]
    nearest = apart == apart.min(axis=1, keepdims=True)
    right, allowed = right[able], allowed[able]
    hit = (nearest & right).sum(axis=1) / nearest.sum(axis=1)
    return float(hit.mean()), float((right.sum(axis=1) / allowed.sum(axis=1)).mean())


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
