"""A process that dies by SIGKILL in the middle of an epoch, and one that goes on, are together the uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.wm.data.samples import inputs, train
from tests.wm.training.test_loop import assert_same_run, newest
from wm.training.checkpoint import list_checkpoints

REPOSITORY = Path(__file__).parents[3]
EVERYTHING: dict[str, Any] = {
    "train__epochs": 2,
    "train__steps_per_epoch": 5,
    "train__checkpoint_every_steps": 2,
    "train__accumulation": 2,
    "train__ema_decay": 0.9,
    "train__log_gradient_norms": True,
    "train__rollout_horizon": 2,
    "train__optimizer__grad_clip_norm": 0.5,
    "train__optimizer__schedule": {"kind": "cosine", "warmup": 0.2, "end": 0.1},
    "model__reconstruction__weight": {"kind": "linear", "start": 1.0, "end": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_killed_in_mid_epoch(tmp_path: Path, precision: str) -> None:
    whole, killed = (
        inputs(tmp_path / name, "align_recon", train__precision=precision, **EVERYTHING) for name in ("whole", "killed")
    )
    train(whole)
    config = tmp_path / "config.json"
    config.write_text(killed.config.model_dump_json())
    for step, resumes_from in ((4, 4), (9, 8)):
        command = [sys.executable, "-m", "tests.wm.training.killed_run", str(config), str(killed.root), str(step)]
        died = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
        assert newest(killed).step == resumes_from
    train(killed)
    assert_same_run(whole, killed)
    a, b = newest(whole), newest(killed)
    assert a.step == b.step == 10
    assert (a.scaler, a.micro_batch, a.best, a.health_at_start) == (b.scaler, b.micro_batch, b.best, b.health_at_start)
    assert [row["metrics"] for row in a.history] == [row["metrics"] for row in b.history]
    names = [[path.name for path in list_checkpoints(run.folder.checkpoints)] for run in (whole, killed)]
    assert names[0] == names[1]
