"""The plain records of an experiment, from which every table, figure and report is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

COMPLETE = "complete"


@dataclass(frozen=True)
class RunRecord:
    """One seed of one variant in one case, as it ended.

    Args:
        run_id: the tracker's name of it.
        variant: the run's name in the spec ("align_recon").
        case: the case's name in the spec ("wall").
        seed: training seed.
        status: "complete", "failed" or another word; only complete runs enter a number.
        failure: the reason in one line if it failed.
        warning: what its last validation found wrong with the model, in one line, or None.
        metrics: final values by name ("val/copy_ratio_h5").
        history: (step, value) by name.
        successes: 0/1 per problem by name ("plan/success_rate_gh5"); all runs of a case share problems and order.
        distances: of the same problems, by name ("plan/state_distance_gh5"), where all could be completed.
        config: the resolved config, nested.
        pictures: file by kind ({"rollout_strip": ...png, "plan_video": ...mp4}).
    """

    run_id: str
    variant: str
    case: str
    seed: int
    status: str = COMPLETE
    failure: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    successes: dict[str, list[int]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    warning: str | None = None
    distances: dict[str, list[float]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.status == COMPLETE

    def by_problem(self, metric: str) -> list[float]:
        """One value a problem, in one order for all runs of a case; empty where the metric is one number."""
        return [float(value) for value in self.successes.get(metric) or self.distances.get(metric) or ()]

    def to_json(self) -> str:
        return json.dumps(_encode(vars(self)), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        return cls._from_dict(json.loads(text))

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> RunRecord:
        values = dict(data)
        values["metrics"] = {name: float(value) for name, value in data["metrics"].items()}
        values["history"] = {
            name: [(int(step), float(value)) for step, value in series] for name, series in data["history"].items()
        }
        return cls(**values)


@dataclass(frozen=True)
class ExperimentRecord:
    """One question, its runs, and what its answer needs.

    Args:
        name: the experiment's name.
        question: the question in words.
        reference: the variant that others are measured against.
        compare: named comparisons, "align_recon - align".
        metric: the metric that decides ("plan/success_rate_gh5").
        mode: "max" or "min".
        runs: all of them, failed ones too.
        controls: successes and distances of the random-action control, case -> metric name -> value per problem.
        facts: what held for all runs (git commit, data fingerprint, machine, versions, timings).
    """

    name: str
    question: str
    reference: str
    compare: list[str]
    metric: str
    mode: str
    runs: list[RunRecord]
    controls: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Case names in the order of the runs."""
        return list(dict.fromkeys(run.case for run in self.runs))

    @property
    def variants(self) -> list[str]:
        """Variant names in the order of the runs."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def complete_runs(self, case: str, variant: str) -> list[RunRecord]:
        """The runs that count, by rising seed."""
        chosen = [run for run in self.runs if run.case == case and run.variant == variant and run.is_complete]
        return sorted(chosen, key=lambda run: run.seed)

    def to_json(self, indent: int | None = None) -> str:
        data = dict(vars(self), runs=[vars(run) for run in self.runs])
        return json.dumps(_encode(data), allow_nan=False, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> ExperimentRecord:
        data = json.loads(text)
        return cls(**dict(data, runs=[RunRecord._from_dict(run) for run in data["runs"]]))


def _encode(value: Any) -> Any:
    """Strict JSON: a number that is not finite travels as "nan" or "inf", which float() reads back."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value
