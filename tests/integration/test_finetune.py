"""`wm finetune` under Ray: an old run and new episodes become a recorded run, a checkpoint in the old units, and a report."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.spec import load_spec
from experiments.tracking import PARENT
from ray_jobs.experiment import Finished, run_experiment
from ray_jobs.finetune import finetune_spec
from ray_jobs.make_data import make_wall
from ray_jobs.runtime.progress import Narrator
from tests.integration.conftest import SPEC, make_data
from wm.build import load

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def finetuned(root: Path, run: Path) -> tuple[Finished, str]:
    """What it ended with, and what it printed."""
    console = Console(file=StringIO(), width=160)
    spec, overrides = finetune_spec(str(run), ["data.sources.later.path=later", "train.epochs=1"])
    finished = run_experiment(spec, overrides, Narrator(console))
    assert isinstance(console.file, StringIO)
    return finished, console.file.getvalue()


def test_an_old_run_goes_on_with_new_episodes(tmp_path: Path, ray_cluster: Any) -> None:
    from mlflow import MlflowClient

    make_data(tmp_path)
    make_wall(tmp_path / "data" / "later", episodes=8, steps=40, frame_size=28, layout="random", seed=9)
    text = SPEC.replace("compare: [align_recon - baseline]", "compare: []").replace(
        "goal_horizons: [3]", "goal_horizons: []"
    )
    lines = [line for line in text.splitlines() if "  align_recon:" not in line]
    (tmp_path / "small.yaml").write_text("\n".join(lines), encoding="utf-8")
    settings = ["metric=val/copy_ratio_h3", "mode=min", f"storage.root={tmp_path}"]
    run_experiment(*load_spec(tmp_path / "small.yaml", settings), Narrator(Console(quiet=True)))
    (old,) = (tmp_path / "runs").iterdir()
    finished, printed = finetuned(tmp_path, old)
    assert finished.failures == []
    (new,) = [path for path in (tmp_path / "runs").iterdir() if path != old]
    assert load(new).statistics.to_json() == load(old).statistics.to_json()
    (found,) = finished.forgetting.values()
    for words in ("old data: before -> after", "new data: before -> after", "copy_ratio_h3"):
        assert words in printed
    saved = json.loads((new / "forgetting.json").read_text())
    assert saved["forgotten"] == found.forgotten
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(f"finetune_{old.name}")
    (child,) = [run for run in client.search_runs([experiment.experiment_id]) if PARENT in run.data.tags]
    assert child.info.status == "FINISHED"
    assert child.data.params["train.start"] == old.name
    assert child.data.metrics["forgetting/copy_ratio_h3"] == pytest.approx(found.forgotten["forgetting/copy_ratio_h3"])
    assert "forgetting.json" in {artifact.path for artifact in client.list_artifacts(child.info.run_id)}
    before = {path: path.stat().st_mtime_ns for path in new.rglob("*.json")}
    assert finetuned(tmp_path, old)[0].forgetting == finished.forgetting  # the same command does nothing twice
    assert {path: path.stat().st_mtime_ns for path in before} == before
