"""A sweep from spec and space to a confirmed best: propose, train, stop early, plan, record, run the best again.

python -m ray_jobs.sweep SPEC --space NAME [--trials N] [--seeds K] [path=value ...]      (or: wm sweep ...)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from rich.markup import escape

from experiments.records import ExperimentRecord
from experiments.spec import load_spec
from experiments.study import Study
from experiments.sweep_record import SweepRecord
from experiments.sweep_report import write_sweep_figures, write_sweep_report
from experiments.sweep_table import render_sweep
from experiments.tracking import Tracker
from ray_jobs.experiment import run_experiment
from ray_jobs.runtime.cluster import check_shared, cluster, is_local, local_node
from ray_jobs.runtime.debug import debug_pass
from ray_jobs.runtime.placement import DRIVER_CPUS, Placement, place
from ray_jobs.runtime.problems import ensure_problems
from ray_jobs.runtime.progress import Narrator, format_s
from ray_jobs.runtime.recording import facts
from ray_jobs.runtime.search import StudySearch, SweepWatcher, scheduler
from ray_jobs.runtime.searched import Searched, write_spec
from ray_jobs.runtime.sweep_driver import SweepDriver
from ray_jobs.runtime.sweep_recording import SweepRecorder
from ray_jobs.runtime.sweep_trial import run_sweep_trial
from ray_jobs.runtime.tokens import encode_missing
from ray_jobs.runtime.training import clean, quieten, scratch
from wm.config.errors import UserError


@dataclass(frozen=True)
class FinishedSweep:
    """What a sweep ended with."""

    record: SweepRecord
    report: Path
    folder: Path


def run_sweep(
    searched: Searched,
    narrator: Narrator,
    *,
    only_resume: bool = False,
    html: Path | None = None,
    began: float | None = None,
) -> FinishedSweep:
    """Every trial that is asked for and not finished yet, then the report.

    Args:
        began: when the command was given, by time.monotonic(); now, unless said otherwise.

    Raises UserError before any work for whatever can be known to be wrong, and KeyboardInterrupt after a clean stop.
    """
    began = time.monotonic() if began is None else began
    with ExitStack() as stack:
        with narrator.step("Check the spec, the space, the data and the tracker"):
            if only_resume:
                _check_started(searched)
            resources = searched.base.config.resources
            sweep = searched.space.sweep
            if is_local():
                place(resources, [local_node()], sweep.num_trials)
            ensure_problems(searched.base)
            stack.enter_context(_alone(searched.folder))
            study = searched.study()
            abandoned = study.reopen()
            asked_for = 0 if abandoned else sweep.num_trials - study.num_finished
            tracking = searched.base.config.tracking
            tracker = Tracker(tracking, searched.root, tracking.experiment or searched.title)
            narrator.say(f"sweep {searched.name}: {study.num_finished} of {sweep.num_trials} trials finished")
            if abandoned:
                narrator.say(f"going on with trial {', '.join(map(str, abandoned))}")
        recorder = SweepRecorder(tracker, searched)
        stack.callback(clean, searched.root)
        try:
            if study.num_finished < sweep.num_trials:
                with narrator.step("Start Ray" if is_local() else "Join the Ray cluster"):
                    placement = place(resources, stack.enter_context(cluster()), sweep.num_trials)
                    check_shared(searched.root)
                _prepare(searched, narrator)
                with narrator.step(f"Search {sweep.num_trials} trials, {placement.runs_at_once} at a time"):
                    _search(searched, study, recorder, placement, narrator)
            confirmation = _confirm(searched, study, recorder, narrator) if sweep.fresh_seeds else None
            with narrator.step("Report"):
                report = html or searched.folder / "report.html"
                record = _record(searched, study, confirmation, _times(searched, narrator))
                write_sweep_report(record, report)
                figures = write_sweep_figures(record, searched.folder / "figures")
                recorder.finish(_best_so_far(record), [report, searched.folder / "figures"] if figures else [report])
        except BaseException:
            recorder.stop()
            raise
    for renderable in render_sweep(record):
        narrator.console.print(renderable)
    narrator.console.print(f"Report: {report}", soft_wrap=True, highlight=False)
    if record.best is not None:
        file = searched.folder / "trials" / f"{record.best.number:04d}.yaml"
        narrator.console.print(f"Trial {record.best.number} alone: wm train {file}", soft_wrap=True, highlight=False)
    _say_estimate(searched.folder, asked_for, time.monotonic() - began, narrator)
    return FinishedSweep(record, report, searched.folder)


def _check_started(searched: Searched) -> None:
    if not (searched.root / "optuna.db").is_file():
        raise UserError(f"--resume: no sweep was started under {searched.root}")
    started = Study.names(searched.study_url)
    if searched.name not in started:
        raise UserError(f"--resume: no sweep {searched.name} was started; there are: {', '.join(started) or 'none'}")


def _prepare(searched: Searched, narrator: Narrator) -> None:
    with narrator.step("Encode frames with the frozen encoder", "episodes") as stage:
        encoded = encode_missing([searched.base], stage.update)
        narrator.say(f"{encoded} episodes encoded" if encoded else "all tokens are in the store already")
    with narrator.step("Debug pass: a few batches of the searched run"):
        if not searched.base.is_complete:
            for warning in debug_pass(searched.base):
                narrator.say(f"[yellow]{escape(warning)}[/yellow]")


def _search(
    searched: Searched, study: Study, recorder: SweepRecorder, placement: Placement, narrator: Narrator
) -> None:
    sweep = searched.space.sweep
    driver = SweepDriver(searched, study, recorder, placement, narrator)
    finished = [trial for trial in study.trials() if trial.state in ("complete", "pruned", "failed")]
    epochs = searched.base.config.train.epochs
    folder, books = searched.folder, scratch(searched.root)

    def trainable(config: dict[str, Any]) -> None:
        run_sweep_trial(folder, config["number"], books)

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C must reach us
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # not every report is of the judged metric
    quieten()
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": DRIVER_CPUS}),
        tune_config=tune.TuneConfig(
            search_alg=StudySearch(driver.propose),
            scheduler=scheduler(sweep, searched.prune_mode, epochs, finished, driver.stop)
            if searched.prune_on
            else None,
            num_samples=-1,
            max_concurrent_trials=placement.runs_at_once,
            reuse_actors=True,  # a trial's process imports torch once, not once a trial
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=books,
            failure_config=tune.FailureConfig(max_failures=searched.base.config.resources.max_failures),
            callbacks=[SweepWatcher(searched.objective, driver)],
            verbose=0,
        ),
    )
    driver.view.start()
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            tuner.fit()
    finally:
        driver.view.stop()
    if driver.fault is not None:
        raise driver.fault


def _confirm(searched: Searched, study: Study, recorder: SweepRecorder, narrator: Narrator) -> ExperimentRecord | None:
    """The best trial against the default, with seeds the sweep never used; None when there is nothing to compare."""
    best = _record(searched, study, None, {}).best
    if best is None:
        return None
    tree = searched.confirmation_spec(best.number, best.params)
    default, chosen = tree["runs"]["default"], tree["runs"]["best"]
    if default == chosen:
        narrator.say("the best trial is the default itself")
        return None
    file = searched.folder / "confirmation.yaml"
    write_spec(file, tree)
    spec, _ = load_spec(file)
    config = searched.base.config
    where = {
        f"{section}.{key}": value
        for section in ("storage", "tracking", "resources")
        for key, value in getattr(config, section).model_dump(mode="json").items()
    }
    where["tracking.experiment"] = config.tracking.experiment or searched.title
    seeds = searched.space.sweep.fresh_seeds
    title = f"Run the best, trial {best.number}, and the default again, each with {seeds} fresh seeds"
    narrator.console.print(f"[bold]{title}[/bold]", highlight=False)
    html = searched.folder / "confirmation.html"
    return run_experiment(spec, where, narrator, html=html, show=False, parent=recorder.parent.run_id).record


def _record(
    searched: Searched, study: Study, confirmation: ExperimentRecord | None, more: Mapping[str, str]
) -> SweepRecord:
    return SweepRecord(
        name=searched.name,
        spec=searched.spec.name,
        base=searched.space.base,
        case=searched.case,
        space=searched.space.name,
        objective=searched.objective,
        mode=searched.mode,
        prune_on=searched.prune_on,
        prune_mode=searched.prune_mode,
        seeds=list(range(searched.space.sweep.num_seeds)),
        scales=searched.scales(),
        defaults=searched.defaults(),
        trials=study.trials(),
        importances=study.importances(),
        confirmation=confirmation,
        facts={**facts([searched.base]), **more},
    )


def _best_so_far(record: SweepRecord) -> list[tuple[int, float]]:
    sign = 1.0 if record.mode == "max" else -1.0
    found: list[tuple[int, float]] = []
    for trial in record.trials:
        if trial.value is not None and trial.state == "complete":
            better = not found or sign * trial.value > sign * found[-1][1]
            found.append((trial.number, trial.value if better else found[-1][1]))
    return found


def _times(searched: Searched, narrator: Narrator) -> dict[str, str]:
    seconds = ", ".join(f"{name}: {value:.1f}" for name, value in narrator.seconds.items())
    return {"study": searched.study_url, "seconds": seconds}


def _say_estimate(folder: Path, trials: int, seconds: float, narrator: Narrator) -> None:
    """How long it took, beside the dry run's estimate if that was of as many whole trials."""
    file = folder / "estimate.json"
    estimate = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    is_of_this = trials > 0 and estimate.get("trials") == trials
    told = f"; the dry run estimated {format_s(estimate['seconds'])}" if is_of_this else ""
    narrator.console.print(f"Took {format_s(seconds)} this time{told}.", highlight=False)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One driver of a sweep at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: this sweep is being run by another process") from None
        yield


def main(arguments: Sequence[str]) -> int:
    """`python -m ray_jobs.sweep SPEC --space NAME ...`: the command `wm sweep`, for `ray job submit`."""
    from ray_jobs.cli import main as command

    sys.argv = ["wm", "sweep", *arguments]
    command()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
