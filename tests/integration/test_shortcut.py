"""A shortcut model's whole experiment under Ray: two workers train what one process trains, and it plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from experiments.spec import load_spec
from ray_jobs.experiment import run_experiment
from ray_jobs.runtime.progress import Narrator
from tests.integration.conftest import SPEC, make_data
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import NullReporter
from wm.training_run import RunInputs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BACKBONE = "{width: 16, depth: 2, heads: 2, kv_heads: 1, head_dim: 8, registers: 1, time_every: 2}"
RUNS = f"""runs:
  baseline:
    model.variant: shortcut
    model.clip_frames: 4
    model.backbone: {BACKBONE}
    model.forcing: {{k_max: 8, bootstrap_fraction: 0.5}}
    train.optimizer.grad_clip_norm: 1.0
cases:
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shortcut")
    make_data(folder)
    before, rest = SPEC.split("runs:")[0], SPEC.split("cases:")[1]
    text = (before + RUNS.removesuffix("\n") + rest).replace("compare: [align_recon - baseline]", "compare: []")
    lines = [
        line
        for line in text.splitlines()
        if "predictor:" not in line and "action.dim" not in line and line != "  model:"
    ]
    (folder / "short.yaml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_two_workers_train_what_one_process_trains(root: Path, ray_cluster: Any) -> None:
    """A published implementation calls its loss on the unwrapped module, and its workers never meet."""
    settings = ["resources.num_workers=2", "resources.cpus_per_worker=0.4", f"storage.root={root}"]
    spec, overrides = load_spec(root / "short.yaml", settings)
    finished = run_experiment(spec, overrides, Narrator(Console(quiet=True)))
    assert finished.failures == []
    (two,) = [plan.config for plan in spec.resolve_runs(overrides)]
    one = two.model_copy(update={"resources": two.resources.model_copy(update={"num_workers": 1})})
    alone = RunInputs(one, root)
    alone.training(NullReporter(), alone.local_batches).run()
    states = [load_checkpoint(find_checkpoint(run.folder.path)).model for run in (alone, RunInputs(two, root))]
    assert alone.hash != RunInputs(two, root).hash
    assert states[0].keys() == states[1].keys()
    fresh = alone.training(NullReporter(), alone.local_batches, keep_checkpoints=False).model.state_dict()
    moved = max(float((states[0][name] - fresh[name]).abs().max()) for name in states[0])
    assert moved > 1e-3
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-2 * moved, msg=name)
