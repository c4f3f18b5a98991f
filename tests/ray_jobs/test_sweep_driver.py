"""The sweep's one writer: what cannot be written ends it with the reason, and nothing false is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.runtime.placement import Node, place
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.sweep_driver import SweepDriver
from ray_jobs.runtime.sweep_trial import job_file, stop_file
from tests.ray_jobs.conftest import make_small_home, open_small
from wm.config.errors import UserError


class Recorder:
    """Hears everything; full when told so."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.is_full = False

    def __getattr__(self, name: str) -> Any:
        def hear(number: int, *given: Any, **named: Any) -> None:
            if self.is_full:
                raise UserError("MLflow cannot be written (database or disk is full)")
            self.heard.append((name, number))

        return hear


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Any, Any, Recorder, SweepDriver]:
    searched = open_small(make_small_home(tmp_path), "sweep.num_trials=3", "sweep.num_seeds=2")
    study, recorder = searched.study(), Recorder()
    placement = place(searched.base.config.resources, [Node(2)], 3)
    driver = SweepDriver(searched, study, recorder, placement, Narrator(Console(quiet=True)))  # type: ignore[arg-type]
    return searched, study, recorder, driver


def test_trials_are_handed_out_and_told_once(parts: tuple[Any, Any, Recorder, SweepDriver]) -> None:
    searched, study, recorder, driver = parts
    assert [driver.propose() for _ in range(4)] == [0, 1, 2, None]
    assert all(job_file(searched.folder, number).is_file() for number in range(3))
    driver.row(0, 0, 20, {"val/copy_ratio_h5": 0.5, "train/epoch": 1.0})
    driver.judged(0, 1, 0.5)
    driver.completed(0, [{"plan/success_rate_gh5": 0.25}, {"plan/success_rate_gh5": 0.75}], [0.25, 0.75], 9.0)
    driver.pruned(1, 3.0)
    driver.failed(2, "the loss is nan")
    assert recorder.heard[-4:] == [("rows", 0), ("complete", 0), ("end", 1), ("end", 2)]
    assert [trial.state for trial in study.trials()] == ["complete", "pruned", "failed"]
    assert study.trials()[0].seed_values == {0: 0.25, 1: 0.75}
    assert driver.fault is None


def test_the_study_learns_what_a_driver_that_ended_never_heard_of(
    parts: tuple[Any, Any, Recorder, SweepDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, study, _, driver = parts
    driver.propose()
    driver.judged(0, 1, 0.9)
    rows = [
        {"step": 20 * e, "epoch": e, "metrics": {"val/copy_ratio_h5": 1 - e / 10, "train/loss": 1.0}} for e in (1, 2, 3)
    ]
    rows.insert(1, {"step": 30, "epoch": 1, "metrics": {"train/loss": 1.0}})
    monkeypatch.setattr("wm.training_run.RunFolder.history", lambda self: rows)
    driver.completed(0, [{}, {}], [0.25, 0.75], 9.0)
    assert study.trials()[0].pruning == [(1, 0.9), (2, 0.8), (3, 0.7)]


def test_a_full_disk_ends_the_sweep_and_tells_nothing_false(parts: tuple[Any, Any, Recorder, SweepDriver]) -> None:
    searched, study, recorder, driver = parts
    assert [driver.propose(), driver.propose()] == [0, 1]
    recorder.is_full = True
    driver.row(0, 0, 20, {"val/copy_ratio_h5": 0.5})
    assert "disk is full" in str(driver.fault)
    assert stop_file(searched.folder, 0).is_file()
    assert stop_file(searched.folder, 1).is_file()
    recorder.is_full = False
    driver.pruned(0, 1.0)  # what the stop brings about is not told: it was not ASHA's
    driver.failed(1, "it ended without a result")
    assert driver.propose() is None
    assert [trial.state for trial in study.trials()] == ["running", "running"]
    # The next driver takes them up again, without the stop.
    study.reopen()
    placement = place(searched.base.config.resources, [Node(2)], 3)
    again = SweepDriver(searched, searched.study(), Recorder(), placement, Narrator(Console(quiet=True)))  # type: ignore[arg-type]
    assert [again.propose(), again.propose()] == [0, 1]
    assert not list(searched.folder.glob("jobs/*.stop"))


def test_a_worker_without_space_ends_the_sweep(parts: tuple[Any, Any, Recorder, SweepDriver]) -> None:
    import errno

    from ray_jobs.runtime.search import SweepWatcher
    from ray_jobs.runtime.trial import no_space

    searched, study, _, driver = parts
    driver.propose()
    trial = type("Trial", (), {"config": {"number": 0}})()
    watcher = SweepWatcher(searched.objective, driver)
    report = no_space(OSError(errno.ENOSPC, "No space left on device", "/mnt/wm/runs/x"))
    watcher.on_trial_result(1, [], trial, report)
    watcher.on_trial_complete(1, [], trial)
    assert str(driver.fault) == "/mnt/wm/runs/x: no space left; free some and run the same command"
    assert study.trials()[0].state == "running"
