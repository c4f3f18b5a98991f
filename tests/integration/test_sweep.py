"""A sweep on clusters of one and four logical CPUs, and on GPUs that are only said to be there: it ends, and every record agrees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tracking import PARENT, Tracker
from ray_jobs.runtime.searched import open_sweep
from tests.integration.conftest import REPOSITORY, SPEC, finish, make_data
from wm.config.platform import TrackingConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = (
    *("train.epochs=3", "train.steps_per_epoch=5", "evaluate.horizons=[1,5]", "evaluate.grid.goal_horizons=[5]"),
    *("metric=plan/success_rate_gh5", "sweep.num_startup_trials=3"),
)
SCRIPT = """
import json, sys
from pathlib import Path
import ray_jobs
from rich.console import Console
from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.placement import place
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.searched import open_sweep
from ray_jobs.sweep import run_sweep
import ray, time
from ray.util.placement_group import placement_group_table

cpus, gpus, spec, *arguments = sys.argv[1:]
searched = open_sweep(spec, "alignment", arguments)
with cluster(int(cpus), int(gpus)) as nodes:
    print("PLACEMENT", place(searched.base.config.resources, nodes, 3))
    run_sweep(searched, Narrator(Console()))
    time.sleep(3)
    print("GROUPS", sum(group["state"] != "REMOVED" for group in placement_group_table().values()))
    free = ray.available_resources()
    print("FREE", free["CPU"], free.get("GPU", 0.0))
"""


ON_GPUS = ("resources.gpus_per_worker=1", "resources.gpus_per_planning_actor=0.5", "train.device=cpu")


@pytest.mark.parametrize(
    ("cpus", "gpus", "more", "at_once", "actors", "seeds", "fresh"),
    [(1, 0, (), 1, 1, 1, 1), (4, 0, (), 3, 1, 1, 0), (4, 2, ON_GPUS, 2, 2, 2, 0)],
)
def test_no_number_of_cpus_deadlocks(
    cpus: int, gpus: int, more: tuple[str, ...], at_once: int, actors: int, seeds: int, fresh: int, tmp_path: Path
) -> None:
    """The GPUs are Ray's word for it: there are none, so what is tested is placement. One has two seeds, one confirms its best."""
    make_data(tmp_path)
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    sweep = ("sweep.num_trials=3", f"sweep.num_seeds={seeds}", f"sweep.fresh_seeds={fresh}")
    arguments = [*SETTINGS, *more, *sweep, f"storage.root={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cpus), str(gpus), str(spec), *arguments],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = finish(process, 900)
    assert process.returncode == 0, output[-3000:]
    assert f"Placement(runs_at_once={at_once}," in output
    assert "GROUPS 0" in output
    assert f"planning_actors_per_run={actors}," in output
    assert f"FREE {float(cpus)} {float(gpus)}" in output
    trials = open_sweep(str(spec), "alignment", arguments).study().trials()
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    complete = [trial for trial in trials if trial.state == "complete"]
    assert complete
    for trial in complete:
        assert set(trial.seed_values) == set(range(seeds))
        assert trial.value == sum(trial.seed_values.values()) / seeds

    tracker = Tracker(TrackingConfig(), tmp_path, "small.alignment", must_exist=True)
    runs = tracker.client.search_runs([tracker.experiment_id], max_results=1000)
    assert "RUNNING" not in {run.info.status for run in runs}
    by_role = {role: [r for r in runs if r.data.tags.get("wm.role") == role] for role in ("sweep", "trial", "run")}
    assert (len(by_role["sweep"]), len(by_role["trial"])) == (1, 3)
    for run in by_role["trial"]:
        trial = trials[int(run.data.tags["wm.number"])]
        assert run.data.tags["wm.state"] == trial.state
        assert run.data.params.keys() == trial.params.keys()
        below = [one for one in by_role["run"] if one.data.tags[PARENT] == run.info.run_id]
        # The other seeds run only for a trial that finishes the first.
        assert len(below) == (seeds if trial.state == "complete" else 1)
        assert all("val/copy_ratio_h5" in one.data.metrics for one in below)
    (folder,) = (tmp_path / "sweeps").iterdir()
    page = (folder / "report.html").read_text()
    assert folder.name in page
    assert "<script" not in page
    confirmed = [r for r in runs if r.data.tags.get("wm.role") == "experiment"]
    assert len(confirmed) == fresh
