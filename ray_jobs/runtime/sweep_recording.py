"""A sweep in MLflow: one parent, a child for each trial, below it a run for each seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

from experiments.provenance import git_commit
from experiments.sweep_record import TrialState
from experiments.tracking import RunLog, Tracker, flatten
from ray_jobs.runtime.recording import facts, keep_diff
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.searched import Searched

_STATUS: dict[TrialState, str] = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "running": "KILLED"}


class SweepRecorder:
    """Writes one sweep. The same command finds the same parent, trials and runs again; each has its true state as a tag."""

    def __init__(self, tracker: Tracker, searched: Searched) -> None:
        self._tracker, self._searched = tracker, searched
        self._trials: dict[int, RunLog] = {}
        self._runs: dict[tuple[int, int], RunLog] = {}
        tags = {
            "wm.role": "sweep",
            "wm.sweep": searched.name,
            "wm.space": json.dumps(searched.space.model_dump(mode="json")),
            "wm.study": searched.study_url,
            "spec": searched.spec.name,
            **{f"fact.{name}": value for name, value in facts([searched.base]).items()},
        }
        self.parent = tracker.open_run(f"sweep {searched.name}", searched.name, tags=tags)
        keep_diff(self.parent)

    def trial(self, number: int, params: Mapping[str, Any], spec_file: Path) -> None:
        """A trial that is about to run."""
        tags = {"wm.role": "trial", "wm.number": str(number), "wm.state": "running", "commit": git_commit()}
        log = self._tracker.open_run(
            f"trial_{number:04d}",
            f"{self._searched.name}/{number}",
            parent=self.parent.run_id,
            tags=tags,
            params=params,
        )
        if spec_file.is_file():
            log.artifact(spec_file)
        self._trials[number] = log

    def rows(self, number: int, index: int, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Metric rows of one seed of a trial."""
        if (number, index) not in self._runs:
            config = run.config.model_dump(mode="json", exclude={"storage", "tracking"})
            tags = {
                "wm.role": "run",
                "seed": str(run.plan.seed),
                "case": run.plan.case,
                "wm.train_hash": run.inputs.hash,
                "wm.folder": str(run.inputs.folder.path),
            }
            parent = self._trials[number].run_id
            name = f"trial_{number:04d}_seed{run.plan.seed}"
            self._runs[number, index] = self._tracker.open_run(
                name,
                f"{self._searched.name}/{number}/{run.plan.seed}",
                parent=parent,
                tags=tags,
                params=flatten(config),
            )
        self._runs[number, index].rows(rows)

    def complete(
        self, number: int, runs: Sequence[Run], final: Sequence[Mapping[str, float]], values: list[float]
    ) -> None:
        """A trial with an objective for every seed."""
        for index, (run, metrics) in enumerate(zip(runs, final, strict=True)):
            planned = {name: value for name, value in metrics.items() if name.startswith("plan/")}
            self.rows(number, index, run, [{"step": run.inputs.total_steps, "metrics": planned}])
        spread = {"objective_sd": stdev(values)} if len(values) > 1 else {}
        mean = sum(values) / len(values)
        metrics = {"objective": mean, self._searched.objective: mean, **spread}
        self._trials[number].rows([{"step": 0, "metrics": metrics}])
        self.end(number, "complete")

    def end(self, number: int, state: TrialState, failure: str = "") -> None:
        """The trial, and the runs below it, have ended like this."""
        if number not in self._trials:
            return
        for (trial, _), log in list(self._runs.items()):
            if trial == number:
                log.finish(_STATUS[state])
        log = self._trials[number]
        log.tag(**{"wm.state": "stopped" if state == "running" else state, "failure": failure})
        log.finish(_STATUS[state])
        self._runs = {key: value for key, value in self._runs.items() if key[0] != number}
        del self._trials[number]

    def stop(self) -> None:
        """The driver ends before its trials do."""
        for number in list(self._trials):
            self.end(number, "running")
        self.parent.finish("KILLED")

    def finish(self, best: Sequence[tuple[int, float]], files: Sequence[Path]) -> None:
        """The sweep is over: best so far by trial, and its report."""
        self.parent.rows([{"step": number, "metrics": {"best_objective": value}} for number, value in best])
        for file in files:
            self.parent.artifact(file, file.name if file.is_dir() else None)
        self.parent.finish()
