"""Planned beside recorded actions, in numbers. docs/offline.md says what each means.

Every metric is a ratio of sums over clips (or a function of one), so that a clip where nothing happens weighs nothing, and the
bootstrap resamples sums. Actions are compared in the checkpoint's normalised units, where 0 is the mean action, over the
columns that vary in the training data.

Shape legend: G goal horizon, F frameskip, A action size, V columns that vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from wm.data.normalization import MIN_STD
from wm.evaluation.offline import CONTROLS, MEAN, PLANNED, RECORDED, ClipOutcome
from wm.evaluation.statistics import Interval, clustered_ratio
from wm.types import Statistics

_STILL = 1e-6  # normalised length of an action below which it has no direction
ACTING = (PLANNED, *CONTROLS)
Level = Literal["step", "clip"]
LEVELS: tuple[Level, ...] = ("step", "clip")  # the mean of a model step's F env actions, and of all of a clip's


class Estimate(NamedTuple):
    """A number over clips and its interval; None where a single episode leaves it open."""

    value: float
    interval: Interval | None


class _Ratio(NamedTuple):
    """Which sums a metric is made of."""

    above: str
    below: str
    form: Literal["ratio", "one_minus", "root"] = "ratio"

    def apply(self, ratio: float) -> float:
        if self.form == "one_minus":
            return 1 - ratio
        return float(np.sqrt(ratio)) if self.form == "root" else ratio


def offline_metrics(
    outcomes: Sequence[ClipOutcome],
    statistics: Statistics,
    names: Sequence[str],
    *,
    goal_horizon: int,
    frameskip: int,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`plan/offline_..._gh{h}` with 95 % intervals over episodes; what the clips leave undefined is left out.

    Args:
        outcomes: of the clips of one goal horizon.
        statistics, names: of the model's own env actions.
        seed: of the resamples.
    """
    suffix = f"gh{goal_horizon}"
    metrics = {
        f"plan/offline_failed_clips_{suffix}": Estimate(float(sum(o.failure is not None for o in outcomes)), None)
    }
    done = [outcome for outcome in outcomes if outcome.failure is None]
    if not done:
        return metrics
    sums = [clip_sums(outcome, statistics, names, frameskip) for outcome in done]
    for name, ratio in _ratios(names).items():
        above, below = (np.array([each[key] for each in sums]) for key in (ratio.above, ratio.below))
        if below.sum() <= 0:
            continue
        base, _, rest = name.partition("/")
        key = f"plan/offline_{base}_{suffix}" + (f"/{rest}" if rest else "")
        metrics[key] = Estimate(
            ratio.apply(float(above.sum() / below.sum())), _interval(ratio, above, below, done, seed)
        )
    warm = [seconds for outcome in done for seconds in outcome.plan_s if seconds is not None]
    if warm:
        metrics[f"plan/offline_plan_s_{suffix}"] = Estimate(float(np.median(warm)), None)
        metrics[f"plan/offline_plan_s_p95_{suffix}"] = Estimate(float(np.quantile(warm, 0.95)), None)
    return metrics


def clip_sums(outcome: ClipOutcome, statistics: Statistics, names: Sequence[str], frameskip: int) -> dict[str, float]:
    """Everything of one clip that the metrics add up."""
    size = statistics.size
    raw = {
        who: np.asarray(actions, np.float64).reshape(-1, frameskip, size) for who, actions in outcome.actions.items()
    }
    raw[MEAN] = np.broadcast_to(statistics.mean.astype(np.float64), raw[RECORDED].shape)
    varies = statistics.std > MIN_STD
    normal = {who: normalized(actions, statistics)[..., varies] for who, actions in raw.items()}
    sums: dict[str, float] = {"clips": 1.0, "model_steps": float(len(raw[RECORDED]))}
    for level in LEVELS:
        truth = at_level(normal[RECORDED], level)
        sums[f"square_{RECORDED}_{level}"] = float(np.square(truth).sum())
        for who in ACTING:
            acted = at_level(normal[who], level)
            cosines = directions(acted, truth)
            sums[f"cosine_{who}_{level}"], sums[f"directed_{who}_{level}"] = float(cosines.sum()), float(len(cosines))
            sums[f"residual_{who}_{level}"] = float(np.square(acted - truth).sum())
            sums[f"square_{who}_{level}"] = float(np.square(acted).sum())
    for who in ACTING:
        errors = np.abs(raw[who].mean(axis=1) - raw[RECORDED].mean(axis=1)).sum(axis=0)
        sums |= {f"mae_{who}/{name}": float(error) for name, error in zip(names, errors, strict=True)}
    for who in (*ACTING, RECORDED):
        bends = second_differences(normal[who].reshape(-1, int(varies.sum())))
        sums[f"bend_{who}"], sums[f"bends_{who}"] = float(np.square(bends).sum()), float(bends.size)
        sums[f"cost_{who}"] = float(np.mean(outcome.costs[who]))
    cheaper = np.less(outcome.costs[PLANNED], outcome.costs[RECORDED])
    sums["cheaper"], sums["plans"] = float(cheaper.sum()), float(len(cheaper))
    sums["latent_error"], sums["latent_copy"] = outcome.latent_error[-1], outcome.copy_error[-1]
    return sums


def normalized(actions: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Raw (..., A) -> float64, in units of the training data's standard deviation around its mean."""
    return (actions - statistics.mean.astype(np.float64)) / statistics.std.astype(np.float64)


def at_level(actions: np.ndarray, level: Level) -> np.ndarray:
    """(G, F, V) -> (G, V), the mean of each model step's env actions, or (1, V), that of all of them."""
    steps = actions.mean(axis=1)
    return steps if level == "step" else steps.mean(axis=0, keepdims=True)


def directions(acted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cosines (at most n,) of rows (n, V); rows where either stands still have no direction and are left out."""
    lengths = np.linalg.norm(acted, axis=-1), np.linalg.norm(truth, axis=-1)
    moves = (lengths[0] > _STILL) & (lengths[1] > _STILL)
    return (acted * truth).sum(axis=-1)[moves] / (lengths[0] * lengths[1])[moves]


def second_differences(actions: np.ndarray) -> np.ndarray:
    """a_{t+1} - 2 a_t + a_{t-1} of consecutive env actions (n, V) -> (n - 2, V), none where n < 3."""
    return np.diff(actions, n=2, axis=0)


def _ratios(names: Sequence[str]) -> dict[str, _Ratio]:
    found: dict[str, _Ratio] = {}
    for who in ACTING:
        of = "" if who == PLANNED else f"_{who}"
        found |= {f"mae{of}/{name}": _Ratio(f"mae_{who}/{name}", "model_steps") for name in names}
        if who == MEAN:  # it has no direction, no length and no bends, and its R2 is 0
            continue
        for level in LEVELS:
            at = "" if level == "step" else "_clip"
            found[f"cosine{at}{of}"] = _Ratio(f"cosine_{who}_{level}", f"directed_{who}_{level}")
            found[f"r2{at}{of}"] = _Ratio(f"residual_{who}_{level}", f"square_{RECORDED}_{level}", "one_minus")
        found[f"magnitude{of}"] = _Ratio(f"square_{who}_step", f"square_{RECORDED}_step", "root")
    for who in (*ACTING, RECORDED):
        of = "" if who == PLANNED else f"_{who}"
        found[f"cost{of}"] = _Ratio(f"cost_{who}", "clips")
        if who != MEAN:
            found[f"jerk{of}"] = _Ratio(f"bend_{who}", f"bends_{who}")
    found["jerk_ratio"] = _Ratio(f"bend_{PLANNED}", f"bend_{RECORDED}")
    found["cost_ratio"] = _Ratio(f"cost_{PLANNED}", f"cost_{RECORDED}")
    found["cheaper"] = _Ratio("cheaper", "plans")
    found["latent_err"], found["copy_err"] = _Ratio("latent_error", "clips"), _Ratio("latent_copy", "clips")
    found["copy_ratio"] = _Ratio("latent_error", "latent_copy")
    return found


def _interval(
    ratio: _Ratio, above: np.ndarray, below: np.ndarray, outcomes: Sequence[ClipOutcome], seed: int
) -> Interval | None:
    found = clustered_ratio(above, below, [outcome.episode for outcome in outcomes], seed=seed)
    if found is None:
        return None
    ends = sorted((ratio.apply(found.low), ratio.apply(found.high)))
    return Interval(ends[0], ends[1], found.level, found.method)
