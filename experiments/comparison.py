"""From the records of an experiment to its comparison: rows with intervals, named differences, and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from experiments.metric_text import (
    NOT_AVAILABLE,
    count,
    format_difference,
    format_ends,
    format_seeds,
    is_comparable,
    is_success,
    label,
    natural_key,
)
from experiments.records import ExperimentRecord, RunRecord
from wm.evaluation import statistics
from wm.evaluation.statistics import Interval

CONTROL = "random actions"
CLAIM_SEEDS, CLAIM_PROBLEMS = 3, 50
COPY_RATIO = "val/copy_ratio_h"
STANDARD_METRICS = ("val/state_probe_r2", "val/effective_rank", "train/time_s")


@dataclass(frozen=True)
class Estimate:
    """A metric of one variant in one case: mean over seeds and problems, and how sure it is.

    Args:
        value: mean over seeds.
        spread: standard deviation of the seed means; None for one seed.
        interval: None where one number is all there is.
        per_seed: mean of each seed.
        num_problems: problems per seed; 1 for a metric that is one number per run.
    """

    value: float
    spread: float | None
    interval: Interval | None
    per_seed: dict[int, float]
    num_problems: int


@dataclass(frozen=True)
class Row:
    """One variant in one case, or the control."""

    case: str
    variant: str
    num_seeds: int
    num_problems: int | None
    estimates: dict[str, Estimate]

    @property
    def is_control(self) -> bool:
        return self.variant == CONTROL


@dataclass(frozen=True)
class Difference:
    """A named comparison within a case, paired by seed and problem; all numbers are None where it could not be made."""

    name: str
    case: str
    num_seeds: int
    num_problems: int
    verdict: str
    value: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    p_holm: float | None = None
    settled: bool = False
    seeds_needed: int | None = None

    def leader(self, mode: str) -> str:
        """The variant on the sought side of the difference, however uncertain."""
        first, second = (part.strip() for part in self.name.split(" - "))
        return first if ((self.value or 0.0) > 0) == (mode == "max") else second


@dataclass(frozen=True)
class ComparisonTable:
    """The whole comparison: what a terminal, a README and a report show."""

    metric: str
    mode: str
    columns: list[str]
    rows: list[Row]
    differences: list[Difference]
    failures: list[RunRecord]
    notes: list[str]
    caption: str
    cases: list[str]

    def rows_of(self, case: str) -> list[Row]:
        return [row for row in self.rows if row.case == case]


def compare(record: ExperimentRecord) -> ComparisonTable:
    """Rows per case and variant, the named differences (Holm's correction over all), and what must be said."""
    success_names = sorted({name for run in record.runs for name in run.successes if is_success(name)}, key=natural_key)
    ratios = sorted(
        {name for run in record.runs for name in run.metrics if name.startswith(COPY_RATIO)}, key=natural_key
    )
    columns = list(dict.fromkeys([record.metric, *success_names, *ratios, *STANDARD_METRICS]))
    rows: list[Row] = []
    for case in record.cases:
        rows += [_row(record, case, variant, columns) for variant in record.variants]
        control = record.controls.get(case, {})
        if control:
            estimates = {name: _estimate({0: values}) for name, values in control.items() if values}
            counts = {len(values) for values in control.values() if values}
            rows.append(Row(case, CONTROL, 0, max(counts, default=None), estimates))
    named = [_difference(record, case, name) for case in record.cases for name in record.compare]
    differences = _corrected(named, record.metric, record.mode)
    failures = [run for run in record.runs if not run.is_complete]
    wanted = [record.metric, *(name for name in columns if not is_success(name))]
    notes = _notes(record, rows, failures, list(dict.fromkeys(wanted)))
    caption = _caption(rows, differences, record.metric)
    metric, mode, cases = record.metric, record.mode, record.cases
    return ComparisonTable(metric, mode, columns, rows, differences, failures, notes, caption, cases)


def _row(record: ExperimentRecord, case: str, variant: str, columns: list[str]) -> Row:
    runs = record.complete_runs(case, variant)
    found = {name: _values(runs, name) for name in columns}
    estimates = {name: _estimate(values) for name, values in found.items() if values}
    problems = [len(run.successes[name]) for run in runs for name in columns if run.successes.get(name)]
    return Row(case, variant, len({run.seed for run in runs}), min(problems, default=None), estimates)


def _values(runs: list[RunRecord], metric: str) -> dict[int, list[float]]:
    """Results by seed: per problem where they are recorded, else the one final number; runs without it are left out."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if found := run.by_problem(metric):
            values[run.seed] = found
        elif isfinite(run.metrics.get(metric, float("nan"))):
            values[run.seed] = [run.metrics[metric]]
    return values


def _matrices(groups: list[dict[int, list[float]]]) -> list[np.ndarray]:
    """Each group as (seeds, problems), seeds rising: the problems all have; seed means where some have no more."""
    lengths = [len(row) for values in groups for row in values.values()]
    shared = min(lengths)
    if shared == 1 < max(lengths):
        return [np.array([[float(np.mean(values[seed]))] for seed in sorted(values)]) for values in groups]
    return [np.array([values[seed][:shared] for seed in sorted(values)]) for values in groups]


def _estimate(values: dict[int, list[float]]) -> Estimate:
    (matrix,) = _matrices([values])
    means = matrix.mean(axis=1)
    spread = float(means.std(ddof=1)) if len(means) > 1 else None
    per_seed = {seed: float(mean) for seed, mean in zip(sorted(values), means, strict=True)}
    return Estimate(float(matrix.mean()), spread, statistics.mean_interval(matrix), per_seed, matrix.shape[1])


def _difference(record: ExperimentRecord, case: str, name: str) -> Difference:
    first, second = (part.strip() for part in name.split(" - "))
    if not is_comparable(record.metric):
        return Difference(name, case, 0, 0, f"{name}: not compared, {record.metric} is on each variant's own scale")
    a, b = (_values(record.complete_runs(case, variant), record.metric) for variant in (first, second))
    shared = sorted(set(a) & set(b))
    if not shared:
        return Difference(name, case, 0, 0, f"{name}: {NOT_AVAILABLE}, no seed has {record.metric} for both")
    left, right = _matrices([{seed: a[seed] for seed in shared}, {seed: b[seed] for seed in shared}])
    result, needed = statistics.paired_difference(left, right), statistics.seeds_needed(left - right)
    size = left.shape[1]
    return Difference(
        name, case, len(shared), size, "", result.value, result.interval, result.p_value, seeds_needed=needed
    )


def _corrected(differences: list[Difference], metric: str, mode: str) -> list[Difference]:
    """Holm's p-values over all comparisons that could be made, then the verdict in words."""
    tested = [index for index, difference in enumerate(differences) if difference.p_value is not None]
    adjusted = statistics.holm([differences[index].p_value or 0.0 for index in tested])
    corrected = list(differences)
    for index, p_holm in zip(tested, adjusted, strict=True):
        difference = replace(differences[index], p_holm=p_holm)
        interval = difference.interval
        clear = interval is not None and not interval.contains(0.0) and p_holm < 1 - interval.level
        # One or two seeds, or a handful of problems, never settle a question, however far apart they lie.
        enough = difference.num_seeds >= CLAIM_SEEDS and not 1 < difference.num_problems < CLAIM_PROBLEMS
        corrected[index] = replace(difference, settled=clear and enough)
    return [replace(item, verdict=item.verdict or _verdict(item, metric, mode)) for item in corrected]


def _verdict(difference: Difference, metric: str, mode: str) -> str:
    value, interval = difference.value, difference.interval
    seeds, problems = difference.num_seeds, difference.num_problems
    assert value is not None
    better = difference.leader(mode)
    text = f"{difference.name}: {format_difference(metric, value)}"
    if interval is not None:
        text += f", {100 * interval.level:.0f} % interval {format_ends(metric, interval)}"
    text += f"; {count(seeds, 'seed')}" + (f", {problems} shared problems" if problems > 1 else "")
    text += f": settled, {better} is better" if difference.settled else ": not settled"
    limits = [statistics.evidence_label(seeds)]
    if not difference.settled and interval is not None and not interval.contains(0.0):
        limits.append(f"in favour of {better}")
        if seeds >= CLAIM_SEEDS and (difference.p_holm or 0.0) >= 1 - interval.level:
            limits.append("but not after Holm's correction")
        elif seeds >= CLAIM_SEEDS and 1 < problems < CLAIM_PROBLEMS:
            limits.append(f"but a claim needs {CLAIM_PROBLEMS} problems")
    said = ", ".join(limit for limit in limits if limit)
    text += f" ({said})" if said else ""
    if difference.settled or seeds < 2 or value == 0:
        return text
    if difference.seeds_needed is None:
        return text + "; more seeds alone would not settle it" + (", more problems may" if problems > 1 else "")
    if difference.seeds_needed <= seeds:
        return text
    return text + f"; a difference of this size would need about {format_seeds(difference.seeds_needed)} seeds"


def _caption(rows: list[Row], differences: list[Difference], metric: str) -> str:
    estimates = [row.estimates[metric] for row in rows if metric in row.estimates and not row.is_control]
    wider = "the wider of Student t over seeds and a two-way bootstrap over seeds and problems (one seed: Wilson)"
    parts = ["Means over seeds; ± is the standard deviation over seeds."]
    if methods := _methods([estimate.interval for estimate in estimates]):
        parts.append(f"Brackets: 95 % interval, {wider}; here {methods}.")
    if any(row.is_control for row in rows):
        parts.append(f"“{CONTROL}” is a control on the same problems, with an interval over them.")
    if methods := _methods([difference.interval for difference in differences]):
        number = len([difference for difference in differences if difference.p_value is not None])
        parts.append(f"Differences are paired by seed and problem, with the same choice of interval; here {methods}.")
        parts.append(f"P-values are corrected by Holm for {count(number, 'named comparison')}; intervals are not.")
    return " ".join(parts)


def _methods(intervals: Sequence[Interval | None]) -> str:
    return "; ".join(sorted({interval.method for interval in intervals if interval}, key=natural_key))


def _notes(record: ExperimentRecord, rows: list[Row], failures: list[RunRecord], wanted: list[str]) -> list[str]:
    notes: list[str] = []
    if failures:
        verb = "is" if len(failures) == 1 else "are"
        notes.append(f"{count(len(failures), 'run')} did not complete and {verb} left out of every number.")
    notes += [f"{run.variant} ({run.case}), seed {run.seed}: {run.warning}." for run in record.runs if run.warning]
    for row in rows:
        if row.is_control:
            continue
        where = f"{row.variant} ({row.case})"
        if row.num_seeds == 0:
            notes.append(f"{where} has no complete run.")
            continue
        missing = [label(name) for name in wanted if name not in row.estimates]
        partial = [name for name, e in row.estimates.items() if len(e.per_seed) < row.num_seeds]
        if missing:
            notes.append(f"{where} did not record: {', '.join(missing)}.")
        if partial:
            notes.append(f"{where} recorded only for some seeds: {', '.join(label(name) for name in partial)}.")
        idle = [n for n, e in row.estimates.items() if "copy_ratio" in n and any(v >= 1 for v in e.per_seed.values())]
        if idle:
            names = ", ".join(label(name).lower() for name in idle)
            notes.append(f"{where} predicts no better than copying the last frame in at least one run ({names} ≥ 1).")
        control = next((other for other in rows if other.is_control and other.case == row.case), None)
        found, chance = row.estimates.get(record.metric), control and control.estimates.get(record.metric)
        if found and found.interval and chance:
            notes += _beside_chance(where, found.interval, chance.value, record.mode)
    for case in record.cases:
        runs = [run for run in record.runs if run.case == case and run.is_complete]
        sizes = {size for run in runs if (size := len(run.by_problem(record.metric)))}
        if len(sizes) > 1:
            notes.append(
                f"Runs of {case} tried {min(sizes)} to {max(sizes)} problems; only the first {min(sizes)} count."
            )
    seeds = [row.num_seeds for row in rows if not row.is_control]
    problems = [row.num_problems for row in rows if not row.is_control and row.num_problems]
    few_problems = bool(problems) and min(problems) < CLAIM_PROBLEMS
    if seeds and (min(seeds) < CLAIM_SEEDS or few_problems):
        notes.append(f"A claim needs at least {CLAIM_PROBLEMS} held-out problems x {CLAIM_SEEDS} training seeds.")
    return notes


def _beside_chance(where: str, interval: Interval, chance: float, mode: str) -> list[str]:
    """A variant that random actions do as well as, or better."""
    above, below = interval.low > chance, interval.high < chance
    if above if mode == "max" else below:
        return []
    if above or below:
        return [
            f"{where} does worse than {CONTROL}: its interval is {'above' if above else 'below'} the control's value."
        ]
    return [f"{where} cannot be told from {CONTROL}: its interval includes the control's value."]
