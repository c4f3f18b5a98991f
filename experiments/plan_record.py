"""What `wm plan` found, as the record that every comparison is drawn from: a case for each goal horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.metric_text import SUCCESS_PREFIX, natural_key
from experiments.records import ExperimentRecord, RunRecord
from wm.evaluation.outcomes import PlanOutcome

METRIC = SUCCESS_PREFIX
CONTROLS = ("random", "oracle")


@dataclass(frozen=True)
class Planned:
    """One checkpoint, or a control, planned with by one planner.

    Args:
        label: what the table calls it: variant and, where there are several, planner; checkpoints of one label are its seeds.
        control: "" for a checkpoint.
        outcomes: by goal horizon; the same problems in the same order for all.
    """

    label: str
    seed: int
    control: str
    outcomes: Mapping[int, Sequence[PlanOutcome]]


def planning_record(name: str, planned: Sequence[Planned], facts: Mapping[str, str]) -> ExperimentRecord:
    """Every label against the first, at each goal horizon. Raises ValueError when nothing but controls was planned."""
    labels = list(dict.fromkeys(each.label for each in planned if not each.control))
    if not labels:
        raise ValueError("no checkpoint was planned with")
    runs = [
        RunRecord(
            run_id="",
            variant=each.label,
            case=case_of(horizon),
            seed=each.seed,
            successes={METRIC: [int(outcome.success) for outcome in outcomes]},
        )
        for each in planned
        if not each.control
        for horizon, outcomes in each.outcomes.items()
    ]
    return ExperimentRecord(
        name=name,
        question="How far can it plan?",
        reference=labels[0],
        compare=[f"{label} - {labels[0]}" for label in labels[1:]],
        metric=METRIC,
        mode="max",
        runs=sorted(runs, key=lambda run: natural_key(run.case)),
        facts=dict(facts),
    )


def case_of(horizon: int) -> str:
    """The case's name."""
    return f"goal horizon {horizon}"
