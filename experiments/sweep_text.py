"""A sweep's parts in words: its states, its paths and values, what its best trial is worth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from experiments.comparison import ComparisonTable, Estimate, compare
from experiments.comparison_text import format_interval, standings
from experiments.metric_text import NOT_AVAILABLE, count, format_value, label
from experiments.sweep_record import SweepRecord, TrialRecord, TrialState

STATES: tuple[TrialState, ...] = ("complete", "pruned", "failed", "running", "waiting")
NOT_SAMPLED = "not sampled"


def count_states(record: SweepRecord) -> str:
    """How many trials there are of each state: "8 trials: 5 complete, 2 pruned, 1 failed"."""
    if not record.trials:
        return "no trials"
    counts = {state: sum(trial.state == state for trial in record.trials) for state in STATES}
    parts = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return f"{count(len(record.trials), 'trial')}: {parts}"


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each path by its last two steps, "weight.kind", or as many more as tell it from the others."""
    known = list(paths)
    names: dict[str, str] = {}
    for path in known:
        steps = path.split(".")
        tails = [".".join(steps[-size:]) for size in range(2, len(steps))]
        alone = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in known) == 1)
        names[path] = next(alone, path)
    return names


def format_setting(value: Any) -> str:
    """A sampled value as a space file would write it, numbers with four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(format_setting(item) for item in value)}]"
    return str(value)


def format_settings(record: SweepRecord, trial: TrialRecord) -> str:
    """What a trial sampled, in the order of the space: "alignment.dim 8, weight.kind cosine"."""
    names = short_names(record.scales)
    return ", ".join(f"{names[path]} {format_setting(trial.params[path])}" for path in names if path in trial.params)


def format_objective(record: SweepRecord, trial: TrialRecord) -> tuple[str, str]:
    """The objective and its standard deviation over seeds: ("62 %", "± 4"); the latter empty for one seed."""
    if trial.value is None:
        return NOT_AVAILABLE, ""
    values = list(trial.seed_values.values())
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    estimate = Estimate(trial.value, spread, None, trial.seed_values, 1)
    return format_value(record.objective, trial.value), format_interval(record.objective, estimate)


def format_seed_values(record: SweepRecord, trial: TrialRecord) -> str:
    """The objective of each seed without its unit, by seed: "58, 66"."""
    values = [trial.seed_values[seed] for seed in sorted(trial.seed_values)]
    return ", ".join(format_value(record.objective, value, like=trial.value).split(" ")[0] for value in values)


def failure_texts(record: SweepRecord) -> list[str]:
    """Failed trials, one line each."""
    failed = [trial for trial in record.trials if trial.state == "failed"]
    return [f"Trial {trial.number} failed: {trial.failure or 'no reason recorded'}" for trial in failed]


def best_text(record: SweepRecord) -> str:
    """The best trial in a sentence: what it measured, over how many seeds, with which settings."""
    best = record.best
    if best is None:
        return "No trial is complete, so there is no best one."
    value = " ".join(part for part in format_objective(record, best) if part)
    seeds = f" over {count(len(best.seed_values), 'seed')}" if best.seed_values else ""
    settings = f", with {found}" if (found := format_settings(record, best)) else ""
    rank = "highest" if record.mode == "max" else "lowest"
    rank = f"{rank} of {len(record.ranked)}" if len(record.ranked) > 1 else "only one complete"
    return f"Trial {best.number}, the {rank}: {label(record.objective)} at {value}{seeds}{settings}."


def verdict_texts(record: SweepRecord) -> list[str]:
    """What the best trial is worth, in sentences; only a confirmation may call it better.

    The largest of many noisy measurements is large by luck too, so the search's own number never decides.
    """
    best, measured = record.best, len(record.ranked)
    if record.confirmation is not None:
        return _confirmed(record, compare(record.confirmation))
    if best is None:
        return ["Not settled: the search has no result."]
    if measured == 1:
        return [
            f"Not settled: trial {best.number} is the only complete one, a noisy measurement that was not confirmed."
        ]
    reason = f"trial {best.number} is the best of {measured} noisy measurements and has not been confirmed."
    return [f"Not settled: {reason}", "The best of several is so by luck too; only fresh seeds can tell."]


def _confirmed(record: SweepRecord, table: ComparisonTable) -> list[str]:
    settled = [difference for difference in table.differences if difference.settled]
    sentences = [f"Settled by the confirmation: {item.leader(table.mode)} is better." for item in settled]
    sentences = sentences or ["Not settled by the confirmation."]
    for case in table.cases:
        if shown := standings(table, case):
            sentences.append(f"{label(table.metric)} on fresh seeds: {shown}.")
    sentences += [f"{difference.verdict}." for difference in table.differences]
    if record.best is not None and len(record.ranked) > 1:
        picked = f"Trial {record.best.number} was picked as the best of {len(record.ranked)} noisy measurements"
        sentences.append(f"{picked}, which flatters it: quote the confirmation, not the search.")
    return sentences
