"""One sweep trial's life under Ray Tune.

proposed --> refused by the config? --yes--> reports `failure`
    | no
    v
train its seeds, one after another, on one set of workers --> reports rows; the first seed's validation is judged
    |            |         |
    |            |         +-- UserError, or the workers died too often --> reports `failure`
    |            +-- ASHA does not want it to go on: a stop file appears, the workers end by themselves --> reports `pruned`
    v
plan with every seed's checkpoint --> reports `final`: metrics of each seed
The trial's process dies: Tune starts it again, at most resources.max_failures times. The driver dies: the same command proposes
the same trial again. Both go on from the runs' own checkpoints and from the outcomes on disk.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any, TypedDict, cast

from ray import tune
from ray.train.v2.api.exceptions import TrainingFailedError

from ray_jobs.runtime.planning import PlanTask, outcome_from, solve_all
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trial import RunJob, fit, no_space
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.data.atomic import FULL, write_json
from wm.evaluation.outcomes import planning_metrics
from wm.evaluation.problems import load_problems
from wm.training.checkpoint import find_checkpoint
from wm.training_run import RunFolder

_PLAN_REPORTS = 10  # a trial's planning is reported about this often


class TrialJob(TypedDict):
    """What a trial is given, as a JSON file under storage.root.

    Args:
        failure: why it cannot be run, or None.
        runs: one for each seed.
        problems: goal horizon -> problems file; empty when the objective needs no planning.
        outcomes: for each seed, goal horizon -> outcome file of each problem.
    """

    failure: str | None
    runs: list[RunJob]
    judged: str | None
    problems: dict[str, str]
    outcomes: list[dict[str, list[str]]]
    num_actors: int


def job_file(folder: Path, number: int) -> Path:
    """Where a sweep keeps a trial's job."""
    return folder / "jobs" / f"{number:04d}.json"


def stop_file(folder: Path, number: int) -> Path:
    """What ends a trial at its next report. Killing its process instead would leave placement groups behind (RAY.md 2, 7)."""
    return folder / "jobs" / f"{number:04d}.stop"


def write_job(
    folder: Path, number: int, runs: list[Run] | UserError, judged: str | None, planned: bool, num_actors: int
) -> None:
    """Draw the planning problems and write the job; `runs` may be the reason why there are none."""
    job = TrialJob(failure=None, runs=[], judged=judged, problems={}, outcomes=[], num_actors=num_actors)
    if isinstance(runs, UserError):
        job["failure"] = str(runs)
    else:
        job["runs"] = [run.job for run in runs]
        if planned:
            ensure_problems(runs[0])
            files = {h: problems_file(runs[0], h) for h in runs[0].config.evaluate.grid.goal_horizons}
            ids = {horizon: [problem.id for problem in load_problems(file)] for horizon, file in files.items()}
            job["problems"] = {str(horizon): str(file) for horizon, file in files.items()}
            job["outcomes"] = [{str(h): [str(run.outcome_file(h, i)) for i in ids[h]] for h in ids} for run in runs]
    write_json(job_file(folder, number), job)


def run_sweep_trial(folder: Path, number: int, scratch: str) -> None:
    """The Tune trainable of a sweep."""
    job = cast(TrialJob, json.loads(job_file(folder, number).read_text(encoding="utf-8")))
    if job["failure"] is not None:
        tune.report({"failure": job["failure"]})
        return
    try:
        stop = stop_file(folder, number)
        fit(
            {
                "jobs": job["runs"],
                "judged": job["judged"],
                "stop_file": str(stop),
                "scratch": scratch,
                "shared": True,
            }
        )
    except TrainingFailedError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        tune.report({"failure": f"its workers died more often than resources.max_failures allows: {lines[-1][:200]}"})
        return
    folders = [RunFolder(Path(run["root"]) / "runs" / run["hash"]) for run in job["runs"]]
    if any(each.result() is None for each in folders):
        if stop.is_file():
            tune.report({"pruned": True})
        return  # otherwise the failure is reported already
    metrics = [_last_metrics(each) for each in folders]
    try:
        for found, planned in zip(metrics, _plan(job, folders), strict=True):
            found |= planned
    except UserError as error:  # this point's planner does not fit this point's model
        tune.report({"failure": str(error)})
        return
    except OSError as error:
        if error.errno not in FULL:
            raise
        tune.report(no_space(error))
        return
    tune.report({"final": [{k: v for k, v in found.items() if isfinite(v)} for found in metrics]})


def _last_metrics(folder: RunFolder) -> dict[str, float]:
    rows: list[dict[str, Any]] = folder.history()
    return dict(rows[-1]["metrics"]) if rows else {}


def _plan(job: TrialJob, folders: list[RunFolder]) -> list[dict[str, float]]:
    """Planning metrics of each seed."""
    tasks: dict[PlanTask, tuple[int, str]] = {}
    for seed, (run, folder) in enumerate(zip(job["runs"], folders, strict=True)):
        if job["problems"]:
            checkpoint = str(find_checkpoint(folder.path))
            for horizon, file in job["problems"].items():
                for index, out in enumerate(job["outcomes"][seed][horizon]):
                    task = PlanTask(checkpoint, run["config_json"], file, index, "none", out)
                    tasks[task] = (seed, horizon)
    found: dict[PlanTask, dict[str, Any]] = {}

    def done(task: PlanTask, outcome: dict[str, Any]) -> None:
        found[task] = outcome
        if len(found) * _PLAN_REPORTS % len(tasks) < _PLAN_REPORTS:
            tune.report({"planned": len(found), "problems": len(tasks)})

    resources = ExperimentConfig.model_validate_json(job["runs"][0]["config_json"]).resources
    solve_all(list(tasks), job["num_actors"], resources, done)
    metrics: list[dict[str, float]] = [{} for _ in folders]
    for seed in range(len(folders)):
        for horizon in job["problems"]:
            outcomes = [outcome_from(found[task]) for task, where in tasks.items() if where == (seed, horizon)]
            metrics[seed] |= planning_metrics(outcomes, int(horizon))
    return metrics
