"""What a training that reports every half second waits for Ray Train, which takes a report when it polls its workers."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

import ray_jobs  # noqa: F401 - it sets what Ray reads when it is first imported, below
from tests.benchmarks.row import Row

REPORTS, WORK_S = 40, 0.5


def _worker(config: dict[str, Any]) -> None:
    from ray_jobs.runtime.trial import TrainReporter

    reporter = TrainReporter()
    began = time.monotonic()
    for step in range(REPORTS):
        time.sleep(WORK_S)
        reporter.report(step, {"train/loss": 0.5})
    Path(config["file"]).write_text(json.dumps(time.monotonic() - began), encoding="utf-8")


def reports() -> list[Row]:
    """The same worker under a poll of two seconds, Ray Train's own, and under ours."""
    from ray_jobs.runtime.cluster import cluster
    from ray_jobs.runtime.progress import Stage
    from ray_jobs.runtime.training import fit_trials
    from ray_jobs.runtime.trial import POLL_S, fit_workers
    from wm.config.platform import ResourcesConfig

    seconds: dict[float, float] = {}
    with tempfile.TemporaryDirectory() as folder, cluster():
        for poll_s in (2.0, POLL_S):
            file = str(Path(folder) / f"{poll_s}.json")

            def trial(number: int, poll_s: float = poll_s, file: str = file) -> None:
                os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = str(poll_s)
                fit_workers(_worker, {"file": file}, ResourcesConfig(), "cpu", "bench", folder)

            run: Any = SimpleNamespace(title="bench", total_steps=REPORTS, failure=None)
            stage = Stage(Console(quiet=True), "bench", "reports")
            fit_trials([run], trial, lambda run, rows: None, stage, folder, at_once=1, max_failures=0)
            seconds[poll_s] = json.loads(Path(file).read_text(encoding="utf-8"))
    what = f"{REPORTS} reports, {WORK_S:g} s of work before each"
    return [
        Row(what, "polls of 2 s", seconds[2.0], f"of {POLL_S:g} s", seconds[POLL_S]),
        Row(what, "the work", REPORTS * WORK_S, f"polls of {POLL_S:g} s", seconds[POLL_S]),
    ]
