"""One whole experiment on a small data set: what it leaves in the store, in MLflow and in the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from experiments.spec import load_spec
from experiments.tracking import PARENT
from ray_jobs.experiment import Finished, run_experiment
from ray_jobs.runtime.progress import Narrator
from tests.integration.conftest import REPOSITORY, SPEC, make_data
from wm.build import load
from wm.training.checkpoint import find_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    make_data(folder)
    (folder / "small.yaml").write_text(SPEC, encoding="utf-8")
    return folder


def run(root: Path) -> Finished:
    spec, overrides = load_spec(root / "small.yaml", [f"storage.root={root}"])
    return run_experiment(spec, overrides, Narrator(Console(quiet=True)))


@pytest.fixture(scope="module")
def finished(root: Path, ray_cluster: Any) -> Finished:
    return run(root)


def test_every_run_is_complete_and_in_mlflow_under_one_parent(root: Path, finished: Finished) -> None:
    from mlflow import MlflowClient

    assert finished.failures == []
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    parents = client.search_runs([experiment.experiment_id], "tags.`wm.role` = 'experiment'")
    assert len(parents) == 1
    children = client.search_runs([experiment.experiment_id], f"tags.`{PARENT}` = '{parents[0].info.run_id}'")
    assert sorted(child.info.run_name for child in children) == ["wall_seed0_align_recon", "wall_seed0_baseline"]
    for child in children:
        assert child.info.status == "FINISHED"
        assert {
            "variant",
            "seed",
            "spec",
            "commit",
            "data_fingerprint",
            "encoder",
            "version.torch",
        } <= child.data.tags.keys()
        assert child.data.params["train.epochs"] == "2"
        assert not any(key.startswith(("storage", "tracking")) for key in child.data.params)
        assert {
            "plan/success_rate_gh3",
            "val/copy_ratio_h3",
            "val/state_probe_r2",
            "train/time_s",
        } <= child.data.metrics.keys()
        names = {artifact.path for artifact in client.list_artifacts(child.info.run_id)}
        assert {"config.json", "checkpoint", "planning", "pictures"} <= names


def test_record_table_and_report(finished: Finished) -> None:
    assert [run.variant for run in finished.record.runs] == ["baseline", "align_recon"]
    assert len(finished.record.runs[0].successes["plan/success_rate_gh3"]) == 3
    assert len(finished.record.controls["wall"]["plan/success_rate_gh3"]) == 3
    page = finished.report.read_text(encoding="utf-8")
    assert "align_recon" in page
    assert "video/mp4" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_command_again_does_nothing_twice(root: Path, finished: Finished) -> None:
    checkpoints = {path: path.stat().st_mtime_ns for path in root.glob("runs/*/checkpoints/*/checkpoint.json")}
    outcomes = {path: path.stat().st_mtime_ns for path in root.glob("runs/*/planning/**/*.json")}
    assert checkpoints
    assert outcomes
    again = run(root)
    assert [r.metrics for r in again.record.runs] == [r.metrics for r in finished.record.runs]
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints
    assert {path: path.stat().st_mtime_ns for path in outcomes} == outcomes


def test_checkpoint_alone_gives_the_same_plan_in_a_fresh_process(root: Path, finished: Finished) -> None:
    record = next(r for r in finished.record.runs if r.variant == "align_recon")
    folder = next(
        path
        for path in (root / "runs").iterdir()
        if json.loads((find_checkpoint(path) / "checkpoint.json").read_text())["facts"]["config"]["model"]["variant"]
        == "align_recon"
    )
    loaded = load(folder)
    assert {"projection", "alignment_head", "reconstruction_head"} <= {
        name.split(".")[0] for name in loaded.model.state_dict()
    }
    script = (
        "import sys, torch, wm; torch.set_num_threads(1); import numpy as np; m = wm.load(sys.argv[1]);"
        "f = np.full((28, 28, 3), 255, np.uint8); g = f.copy(); g[5:9, 5:9, 1:] = 0;"
        "print(wm.plan(m, f, g).actions.tobytes().hex())"
    )
    plans = [
        subprocess.run(
            [sys.executable, "-c", script, str(folder)], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    torch.set_num_threads(1)
    assert plans[0].stdout == plans[1].stdout
    assert len(plans[0].stdout) > 100
    assert record.config["model"]["variant"] == "align_recon"
