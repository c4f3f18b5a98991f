"""The project's own files agree with one another."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Package -> version of both locks. A line that is not `name==version` fails."""
    found = {}
    for lock in ("requirements-torch.lock", "requirements.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            if line.startswith("#"):
                continue
            pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
            assert pin, f"{lock}: not an exact version: {line!r}"
            assert normal(pin[1]) not in found, f"{pin[1]} is pinned twice"
            found[normal(pin[1])] = pin[2]
    return found


def test_every_dependency_is_locked():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    named = {normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0]) for group in groups for requirement in group}
    assert named <= pins().keys()


def test_the_build_backend_is_locked():
    """`pip install --no-build-isolation -e .` works offline only with setuptools in the environment."""
    assert "setuptools" in pins()


def test_lock_leaves_the_gpu_build_to_torch():
    theirs = [name for name in pins() if name.startswith(("nvidia-", "cuda-", "triton")) and name != "nvidia-ml-py"]
    assert theirs == []


@pytest.mark.parametrize("module", ["wm", "wm.config"])
def test_config_is_light(module: str):
    """--help and validation must not wait for torch."""
    heavy = ["torch", "transformers", "ray", "mlflow", "lerobot", "scipy"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_tests_import_their_own_package():
    """draccus leaves a `tests` in site-packages; ours must win."""
    import tests

    assert Path(tests.__file__).parent == ROOT / "tests"
