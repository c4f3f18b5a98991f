"""The plain record of a sweep, from which its tables, figures and report are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.records import ExperimentRecord

TrialState = Literal["complete", "pruned", "failed", "running", "waiting"]


@dataclass(frozen=True)
class TrialRecord:
    """One point of a sweep.

    Args:
        number: 0, 1, ... in the order of proposal.
        state: `pruned` was stopped early on the validation metric; `failed` could not be finished.
        params: config path -> sampled value; a path whose condition did not hold is absent.
        value: the objective, its mean over seeds; only of complete trials.
        seed_values: the objective by training seed.
        pruning: (epoch, validation metric) of the first seed, which is judged while it trains.
        failure: the reason in one line if it failed.
        seconds: from start to end, without interruptions; None while it has no end.
    """

    number: int
    state: TrialState
    params: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    seed_values: dict[int, float] = field(default_factory=dict)
    pruning: list[tuple[int, float]] = field(default_factory=list)
    failure: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SweepRecord:
    """A search and what it found.

    Args:
        name: "align_vs_align_recon/alignment".
        spec, base, case: which run of which spec, in which case, was searched ("" when the spec has no cases).
        space: the search space's name.
        objective, mode: what is sought ("plan/success_rate_gh5"), "max" or "min".
        prune_on, prune_mode: the validation metric that stops trials early, or None.
        seeds: training seeds of every trial, the judged one first.
        scales: searched path -> "choice", "int", "uniform" or "loguniform", in the order of the space file.
        defaults: searched path -> the base run's own value, where it has one.
        trials: all, by number.
        importances: path -> share of the objective's variance it explains, in [0, 1]; empty when it cannot be told.
        confirmation: `best` against `default` with fresh seeds, or None when it was not run.
        facts: what held for all (git commit, data fingerprint, machine, versions, timings).
    """

    name: str
    spec: str
    base: str
    case: str
    space: str
    objective: str
    mode: Literal["max", "min"]
    prune_on: str | None
    prune_mode: Literal["max", "min"]
    seeds: list[int]
    scales: dict[str, str]
    defaults: dict[str, Any]
    trials: list[TrialRecord]
    importances: dict[str, float] = field(default_factory=dict)
    confirmation: ExperimentRecord | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def ranked(self) -> list[TrialRecord]:
        """Complete trials, best first; of equals the earlier."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        sign = -1.0 if self.mode == "max" else 1.0
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial, or None."""
        ranked: Sequence[TrialRecord] = self.ranked
        return ranked[0] if ranked else None
