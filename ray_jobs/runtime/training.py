"""All runs of an experiment under Ray Tune, each a TorchTrainer; what they report goes to MLflow from here."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ray import tune

from ray_jobs.runtime.placement import DRIVER_CPUS, Placement
from ray_jobs.runtime.progress import Stage
from ray_jobs.runtime.recording import Recorder
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trial import run_trial


class Watched(Protocol):
    """What trains in a trial, as people see it.

    Args:
        failure: why it could not be completed, or None.
    """

    failure: str | None

    @property
    def title(self) -> str: ...

    @property
    def total_steps(self) -> int: ...


_W = TypeVar("_W", bound=Watched)


class _Watcher(tune.Callback, Generic[_W]):
    """Hears every report in the driver: one writer to MLflow, whatever dies elsewhere."""

    def __init__(self, runs: Sequence[_W], record: Callable[[_W, list[dict[str, Any]]], object], stage: Stage) -> None:
        super().__init__()
        self._runs = runs
        self._record = record
        self._stage = stage

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks for a restore; we never restore one (a run resumes from its own folder)."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        run = self._runs[trial.config["index"]]
        if "failure" in result:
            run.failure = result["failure"]
        elif "metrics" in result:
            metrics = result["metrics"]
            history = {
                k: v for k, v in metrics.items() if k not in ("train/steps_per_s", "train/time_s", "train/epoch")
            }
            self._record(run, [{"step": result["step"], "metrics": history}])
            for note in result.get("notes", ()):
                self._stage.say(f"{run.title}: {note}")
            note = f"{metrics['train/steps_per_s']:.1f}/s" if "train/steps_per_s" in metrics else ""
            self._stage.update(result["step"], run.total_steps, run.title, note)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        run = self._runs[trial.config["index"]]
        run.failure = run.failure or _reason(str(trial.get_error() or ""))


def _reason(trace: str) -> str:
    """The exception's own line of a traceback; what follows it may be a hint without a reason."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return [*lines, *named][-1][:300] if lines else "its processes died"


def train_all(runs: Sequence[Run], placement: Placement, recorder: Recorder, stage: Stage) -> None:
    """Train what is not complete. A run that cannot be trained has `failure` set; the others go on."""
    # Runs that differ in planning only are one training.
    waiting = list({run.inputs.hash: run for run in reversed(runs) if not run.is_complete}.values())[::-1]
    for run in runs:
        trains = any(run is other for other in waiting)
        stage.update(0 if trains else run.total_steps, run.total_steps, run.title, "" if trains else "trained already")
    if waiting:
        jobs = [run.job for run in waiting]
        folder = scratch(runs[0].inputs.root)
        fit_trials(
            waiting,
            lambda number: run_trial(jobs[number], folder),
            recorder.rows,
            stage,
            folder,
            at_once=placement.runs_at_once,
            max_failures=runs[0].config.resources.max_failures,
        )
    failures = {run.inputs.hash: run.failure for run in waiting}
    for run in runs:
        run.failure = failures.get(run.inputs.hash)
        _settle(run, recorder)


def fit_trials(
    runs: Sequence[_W],
    trial: Callable[[int], None],
    record: Callable[[_W, list[dict[str, Any]]], object],
    stage: Stage,
    folder: str,
    *,
    at_once: int,
    max_failures: int,
) -> None:
    """One Tune trial for each run. What they report goes to `record` and `stage`; one that fails has `failure` set.

    Args:
        trial: what trial number i runs; it travels to another process, so it must hold no run.
        folder: for Ray's own books, see `scratch`.
    """

    def trainable(config: dict[str, Any]) -> None:
        trial(config["index"])

    # Ctrl-C must reach us, not Tune: it would return as if all had ended.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    quieten()
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": DRIVER_CPUS}),
        param_space={"index": tune.grid_search(list(range(len(runs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=folder,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[_Watcher(runs, record, stage)],
            verbose=0,
        ),
    )
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        tuner.fit()  # Tune and the raylet speak of files that are removed and processes that are meant


def _settle(run: Run, recorder: Recorder) -> None:
    """Everything the run's own record holds is in MLflow, once, however often it was interrupted."""
    result = run.inputs.folder.result()
    if result is None:
        run.failure = run.failure or "its processes died more often than resources.max_failures allows"
        recorder.fail(run, run.failure)
        return
    run.failure = None
    recorder.rows(run, result["history"])
    recorder.child(run).tag(warning=collapse(result["history"]))
    recorder.rows(run, [{"step": run.inputs.total_steps, "metrics": {"train/time_s": result["time_s"]}}])


def collapse(history: Sequence[Mapping[str, Any]]) -> str:
    """Whether the latents had collapsed at the last validation, in words or none. (The report finds idle models by itself.)"""
    validated = [row["warnings"] for row in history if "warnings" in row]
    return validated[-1].get("collapsed", "") if validated else ""


def quieten() -> None:
    """Tune and Train speak of files that are removed and processes that are meant."""
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def scratch(root: Path) -> str:
    """Where this command lets Ray keep its own books."""
    return str(root / "ray" / f"{socket.gethostname()}-{os.getpid()}")


def clean(root: Path) -> None:
    """Remove them: nothing is resumed from there."""
    shutil.rmtree(scratch(root), ignore_errors=True)
    with contextlib.suppress(OSError):  # another command's are still there
        (root / "ray").rmdir()
