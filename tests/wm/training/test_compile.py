"""A compiled predictor is the same predictor under the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import inputs, train
from tests.wm.training.test_loop import newest
from wm.build import load

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_a_compiled_run_is_nearly_the_plain_one(tmp_path: Path) -> None:
    values = {"model__predictor__dropout": 0.0, "train__epochs": 1, "train__log_gradient_norms": True}
    plain, compiled = (
        inputs(tmp_path / str(wanted), "align", train__compile=wanted, train__ema_decay=0.9, **values)
        for wanted in (False, True)
    )
    train(plain)
    config = tmp_path / "config.json"
    config.write_text(compiled.config.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "tests.wm.training.compiled_run", str(config), str(compiled.root)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 1, "one graph, for the training steps alone"
    a, b = newest(plain), newest(compiled)
    assert a.model.keys() == b.model.keys()
    for name, value in a.model.items():
        torch.testing.assert_close(b.model[name], value, rtol=1e-4, atol=1e-4, msg=name)
    for before, after in zip(a.history, b.history, strict=True):
        for name, value in before["metrics"].items():
            assert after["metrics"][name] == pytest.approx(value, rel=1e-2, abs=1e-3), name
    assert load(compiled.folder.path).encoder.dim == 16
