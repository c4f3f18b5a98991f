"""Sweeps as jobs, while a worker, a trial, a planning actor, the driver and the head are killed: the truth is there in the morning."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.study import Study
from experiments.sweep_record import TrialRecord
from experiments.tracking import PARENT, Tracker
from ray_jobs.runtime.searched import open_sweep
from tests.integration.conftest import REPOSITORY, SPEC, finish, make_data, wait_until
from tests.integration.heads import Head, start_head
from wm.config.platform import TrackingConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.recovery]

TRIALS = 8
SETTINGS = (
    *("train.epochs=3", "train.steps_per_epoch=100", "train.checkpoint_every_steps=20", "evaluate.horizons=[1,5]"),
    *(
        "evaluate.grid.goal_horizons=[5]",
        "metric=plan/success_rate_gh5",
        "sweep.num_startup_trials=3",
        "sweep.fresh_seeds=0",
    ),
)
ONE_BY_ONE = ("resources.runs_at_once=1", "sweep.pruning.kind=none")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "small.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def wm(*arguments: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "WM_HOME": str(root), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def study_of(spec: Path, space: str, root: Path, more: tuple[str, ...]) -> Study:
    arguments = [*SETTINGS, *more, f"sweep.num_trials={TRIALS}", f"storage.root={root}"]
    return open_sweep(str(spec), space, arguments).study()


def num_finished(root: Path) -> int:
    """Read beside a sweep that may be making the tables."""
    if not (root / "optuna.db").is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{root / 'optuna.db'}?mode=ro", uri=True) as database:
            states = "('COMPLETE', 'PRUNED', 'FAIL')"
            return int(database.execute(f"SELECT count(*) FROM trials WHERE state IN {states}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def processes(head: Head, what: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for child in psutil.Process(head.process.pid).children(recursive=True):
        try:
            if what in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def steps_of_unfinished(root: Path) -> int:
    steps = [0]
    for run in (root / "runs").glob("*"):
        if not (run / "result.json").is_file():
            steps += [int(path.name.removeprefix("step_")) for path in run.glob("checkpoints/step_*")]
    return max(steps)


def disturbed(spec: Path, space: str, root: Path, more: tuple[str, ...]) -> None:
    """The sweep as a job, started three times: in the first all but the head die, one after another; in the second the head."""
    make_data(root)

    def submit(head: Head) -> subprocess.Popen[str]:
        command = ("submit", str(spec), "--space", space, "--trials", str(TRIALS), "--address", head.address)
        return wm(*command, *SETTINGS, *more, root=root)

    def until(condition: Any, job: subprocess.Popen[str]) -> None:
        wait_until(lambda: condition() or job.poll() is not None, 600)
        assert job.poll() is None, (job.communicate()[0] or "")[-3000:]

    with start_head(root) as head:
        job = submit(head)
        until(lambda: num_finished(root) >= 1 and steps_of_unfinished(root) >= 60, job)
        for what in ("ray::RayTrainWorker", "ray::ImplicitFunc", "ray::Solver"):
            until(lambda what=what: processes(head, what), job)
            for victim in processes(head, what)[:1]:
                victim.kill()
        finished = num_finished(root)
        until(lambda: num_finished(root) >= max(3, finished + 1) and steps_of_unfinished(root) >= 60, job)
        drivers = processes(head, "ray_jobs.sweep")
        assert drivers
        for driver in drivers:
            driver.kill()
        output = finish(job)
        assert job.returncode != 0, output[-3000:]
        job = submit(head)
        finished = num_finished(root)
        until(lambda: num_finished(root) >= finished + 2 and steps_of_unfinished(root) >= 60, job)
        head.kill()
        finish(job)
        assert job.returncode != 0
    assert num_finished(root) < TRIALS, "nothing was left to do"
    with start_head(root) as head:
        job = submit(head)
        output = finish(job)
        assert job.returncode == 0, output[-3000:]


def assert_told_once(trials: list[TrialRecord], space: str, root: Path, spec: Path) -> None:
    """Optuna and MLflow agree on every trial, and nothing is left open."""
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    assert "complete" in {trial.state for trial in trials}
    tracker = Tracker(TrackingConfig(), root, f"{spec.stem}.{space}", must_exist=True)
    found = tracker.client.search_runs([tracker.experiment_id], max_results=1000)
    assert "RUNNING" not in {run.info.status for run in found}
    recorded = [run for run in found if run.data.tags.get("wm.role") == "trial"]
    assert sorted(int(run.data.tags["wm.number"]) for run in recorded) == list(range(TRIALS))
    by_number = {int(run.data.tags["wm.number"]): run for run in recorded}
    for trial in trials:
        run = by_number[trial.number]
        assert run.data.tags["wm.state"] == trial.state
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]
        if trial.value is not None:
            assert run.data.metrics["objective"] == trial.value
        below = [one for one in found if one.data.tags.get(PARENT) == run.info.run_id]
        assert len(below) == 1
        for name in below[0].data.metrics:
            steps = [point.step for point in tracker.client.get_metric_history(below[0].info.run_id, name)]
            assert len(steps) == len(set(steps)), f"trial {trial.number}: {name} twice at a step"


def told(trials: list[TrialRecord]) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.params, t.value, t.seed_values, t.pruning) for t in trials]


def test_one_by_one_the_killed_sweep_is_the_undisturbed_one(spec: Path, tmp_path: Path) -> None:
    undisturbed, killed, alone = (tmp_path / name for name in ("undisturbed", "killed", "alone"))
    make_data(undisturbed)
    command = ("sweep", str(spec), "--space", "alignment", "--trials", str(TRIALS))
    process = wm(*command, *SETTINGS, *ONE_BY_ONE, root=undisturbed)
    output = finish(process, 900)
    assert process.returncode == 0, output[-3000:]
    disturbed(spec, "alignment", killed, ONE_BY_ONE)
    trials = study_of(spec, "alignment", killed, ONE_BY_ONE).trials()
    assert_told_once(trials, "alignment", killed, spec)
    assert told(trials) == told(study_of(spec, "alignment", undisturbed, ONE_BY_ONE).trials())

    # A trial's spec, run alone elsewhere, gives its numbers.
    make_data(alone)
    chosen = trials[3]
    (file,) = killed.glob("sweeps/*/trials/0003.yaml")
    shutil.copy(file, tmp_path / "alone.yaml")
    process = wm("train", str(tmp_path / "alone.yaml"), root=alone)
    output = finish(process)
    assert process.returncode == 0, output[-3000:]
    tracker = Tracker(TrackingConfig(), alone, "alone", must_exist=True)
    (run,) = [
        run for run in tracker.client.search_runs([tracker.experiment_id]) if run.data.tags.get("variant") == "trial"
    ]
    assert run.data.metrics["plan/success_rate_gh5"] == chosen.value
    history = tracker.client.get_metric_history(run.info.run_id, "val/copy_ratio_h5")
    assert [point.value for point in history] == [value for _, value in chosen.pruning]


@pytest.mark.parametrize("space", ["reconstruction", "horizon"])
def test_side_by_side_with_pruning_every_trial_is_told_once(space: str, spec: Path, tmp_path: Path) -> None:
    disturbed(spec, space, tmp_path, ())
    assert_told_once(study_of(spec, space, tmp_path, ()).trials(), space, tmp_path, spec)
