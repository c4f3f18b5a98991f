"""What --help and validation must not wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("wm.config.experiment, wm.config.resolve, wm.config.hashing, wm", ["torch", "numpy", "transformers", "ray"]),
        ("ray_jobs.cli", ["torch", "ray", "mlflow", "transformers", "numpy", "matplotlib"]),
    ],
)
def test_importing_it_imports_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
