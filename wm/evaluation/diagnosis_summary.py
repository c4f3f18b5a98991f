"""Facts of many problems as the few numbers that a diagnosis shows, each with its interval over problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm.evaluation.diagnosis import Row, Verdict, losses, verdict
from wm.evaluation.diagnosis_facts import ProblemFacts
from wm.evaluation.ranking import Agreement, LatentJudge, latent_judge, share_cheaper, spearman
from wm.evaluation.statistics import Interval, paired_difference, paired_t

TRUSTED = 0.75  # balanced accuracy below which imagined success is not told from failure


@dataclass(frozen=True)
class Measure:
    """A mean over problems. interval: 95 %, None with one problem."""

    value: float
    interval: Interval | None
    num_problems: int


# Name -> what it is, and what a perfect model or objective would show.
MEASURES = {
    "cheaper_imagined": ("random plans cheaper than the recorded actions, by the model", "0 %"),
    "cheaper_true": ("random plans cheaper than the recorded actions, by true frames", "0 %"),
    "order_imagined": ("rank correlation, random plans' cost and true end distance, by the model", "1"),
    "order_true": ("rank correlation, random plans' cost and true end distance, by true frames", "1"),
    "order_oracle": ("rank correlation, latent and true distance, along recorded actions", "1"),
    "order_random": ("rank correlation, latent and true distance, along random actions", "1"),
}


@dataclass(frozen=True)
class ShiftRow:
    """Success as evaluated under a shift; `difference` to the same problems without it."""

    row: Row
    difference: float
    interval: Interval | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything about one goal horizon.

    Args:
        search: the small search in words.
        error_ratio: of the model's error under the recorded actions to copying the start, after each model step.
        judge, agreement: imagined success; `agreement` is None where the judge is no better than a guess.
        dropped: what is not there, and why.
    """

    goal_horizon: int
    search: str
    rows: Mapping[str, Row]
    verdict: Verdict
    error_ratio: Sequence[float]
    measures: Mapping[str, Measure]
    judge: LatentJudge | None
    agreement: Agreement | None
    shifts: Mapping[str, ShiftRow]
    dropped: Sequence[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """Plain values for diagnosis.json; a number that is none is null."""
        rows = {name: _row(row) for name, row in self.rows.items()}
        shifts = {
            name: {**_row(shift.row), "difference": shift.difference, "difference_interval": _ends(shift.interval)}
            for name, shift in self.shifts.items()
        }
        lost = [{**dataclasses.asdict(loss), "interval": _ends(loss.interval)} for loss in losses(self.rows)]
        measures = {
            name: {"value": m.value, "interval": _ends(m.interval), "problems": m.num_problems}
            for name, m in self.measures.items()
        }
        return {
            "goal_horizon": self.goal_horizon,
            "search": self.search,
            "rows": rows,
            "losses": lost,
            "cause": self.verdict.cause,
            "verdict": list(self.verdict.words),
            "error_ratio": [None if not np.isfinite(value) else value for value in self.error_ratio],
            "measures": measures,
            "judge": None if self.judge is None else dataclasses.asdict(self.judge),
            "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
            "shifts": shifts,
            "dropped": list(self.dropped),
        }


def diagnosis(
    goal_horizon: int,
    rows: Mapping[str, Row],
    facts: Sequence[ProblemFacts],
    shifts: Mapping[str, Row],
    search: str,
    dropped: Sequence[str] = (),
) -> Diagnosis:
    """Sum up.

    Args:
        rows: `evaluated` among them.
        shifts: success as evaluated under each.
        dropped: what is known to be missing, and why.
    """
    missing = list(dropped)
    judge, agreement = _imagined(rows["evaluated"], facts, missing)
    compared = {name: _shift(row, rows["evaluated"]) for name, row in shifts.items()}
    return Diagnosis(
        goal_horizon,
        search,
        rows,
        verdict(rows, search),
        error_ratio(facts),
        measures(facts),
        judge,
        agreement,
        compared,
        missing,
    )


def error_ratio(facts: Sequence[ProblemFacts]) -> list[float]:
    """Summed over problems, the model's squared error over that of copying the start, by model step; 1: nothing learnt."""
    known = [each for each in facts if each.model_error]
    if not known:
        return []
    error, copied = (
        np.array([getattr(each, name) for each in known]).sum(axis=0) for name in ("model_error", "copy_error")
    )
    return [float(value) for value in error / np.maximum(copied, 1e-12)]


def measures(facts: Sequence[ProblemFacts]) -> dict[str, Measure]:
    """Those of MEASURES that some problem has."""
    values: dict[str, Callable[[ProblemFacts], float]] = {
        "cheaper_imagined": lambda p: _share(p.imagined, p.oracle_imagined),
        "cheaper_true": lambda p: _share(p.true, p.oracle_true),
        "order_imagined": lambda p: spearman(p.imagined, p.distance),
        "order_true": lambda p: spearman(p.true, p.distance),
        "order_oracle": lambda p: _along(p, "oracle"),
        "order_random": lambda p: _along(p, "random"),
    }
    found: dict[str, Measure] = {}
    for name, value in values.items():
        known = np.array([number for each in facts if np.isfinite(number := value(each))])
        if len(known):
            lowest = 0.0 if name.startswith("cheaper") else -1.0
            # Student t, whatever the values: shares that happen to be 0 or 1 everywhere are no counts of successes.
            interval = paired_t(known, unit="problems").clipped(lowest, 1.0) if len(known) > 1 else None
            found[name] = Measure(float(known.mean()), interval, len(known))
    return found


def _imagined(
    evaluated: Row, facts: Sequence[ProblemFacts], missing: list[str]
) -> tuple[LatentJudge | None, Agreement | None]:
    costs = [np.concatenate([way.cost for way in each.ways.values()]) for each in facts]
    met = [np.concatenate([way.met for way in each.ways.values()]) for each in facts]
    judge = latent_judge(costs, met) if facts else None
    if judge is None:
        missing.append("imagined success: too few true frames at a goal to say which latent distance is success")
        return None, None
    if judge.accuracy < TRUSTED:
        missing.append(
            f"imagined success: by latent distance, success is told from failure in only {100 * judge.accuracy:.0f} % of true "
            "frames (balanced)"
        )
        return judge, None
    asked = [each for each in facts if each.problem in evaluated.solved]
    imagined = [judge.met(each.dreamt) for each in asked]
    return judge, Agreement.of(imagined, [evaluated.solved[each.problem] for each in asked])


def _share(costs: Sequence[float], right: float | None) -> float:
    return float("nan") if right is None or not costs else share_cheaper(costs, right)


def _along(facts: ProblemFacts, name: str) -> float:
    way = facts.ways.get(name)
    return float("nan") if way is None else spearman(way.cost, way.distance)


def _shift(row: Row, evaluated: Row) -> ShiftRow:
    common = [key for key in row.solved if key in evaluated.solved]
    pair = [[float(each.solved[key]) for key in common] for each in (row, evaluated)]
    difference = paired_difference([pair[0]], [pair[1]])
    return ShiftRow(row, difference.value, difference.interval)


def _row(row: Row) -> dict[str, Any]:
    return {
        "solved": sum(row.solved.values()),
        "problems": len(row.solved),
        "rate": row.rate,
        "interval": _ends(row.interval),
        "failures": row.failures,
        "by_problem": dict(row.solved),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
