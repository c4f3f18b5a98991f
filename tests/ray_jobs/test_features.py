"""Commands on runs whose data holds features and no frames: numbers without pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ray_jobs.eval import evaluate_checkpoint
from ray_jobs.runtime.problems import ensure_problems
from ray_jobs.runtime.progress import Narrator
from tests.wm.data.samples import user_error
from tests.wm.test_precomputed_run import config
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs


@pytest.fixture
def run(tmp_path: Path) -> RunInputs:
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "maze").mkdir(parents=True)
    sizes = {"features": 6, "states": 2, "actions": 2}
    values = {key: rng.normal(size=(12, 40, size)).astype(np.float32) for key, size in sizes.items()}
    np.savez(tmp_path / "data" / "maze" / "features.npz", allow_pickle=False, **values)
    run = RunInputs(config(storage__root=str(tmp_path), train__steps_per_epoch=2), tmp_path)
    run.training(NullReporter(), run.local_batches).run()
    return run


def test_eval_prints_its_table_and_draws_nothing(run: RunInputs, tmp_path: Path) -> None:
    page = io.StringIO()
    narrator = Narrator(Console(file=page, width=200))
    evaluate_checkpoint(run.folder.path, [f"storage.root={tmp_path}"], tmp_path / "out", narrator)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["eval.json"]
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["state"]
    assert "No pictures: the data holds features, no frames" in page.getvalue()


def test_planning_is_refused_before_any_work(run: RunInputs) -> None:
    message = user_error(lambda: ensure_problems(SimpleNamespace(config=run.config, inputs=run)))  # type: ignore[arg-type]
    assert message.startswith("data.sources.maze: holds features, no frames: planning in a world")
