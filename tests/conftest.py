"""What every test stands on: a clean environment, checked shapes, golden numbers, one Ray cluster a session."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import install_import_hook

GOLDEN = Path(__file__).parent / "golden"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"  # real data beside the checkout on the authors' machine

# Before anything reads them. Subprocesses and Ray workers inherit them.
os.environ.update(
    TOKENIZERS_PARALLELISM="false",  # forks after use warn
    MPLBACKEND="Agg",
    SDL_VIDEODRIVER="dummy",  # pygame without a display
    PYGAME_HIDE_SUPPORT_PROMPT="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    RAY_USAGE_STATS_ENABLED="0",
    # A token of this session's own: with the mode unset a local ray.init() writes one to the home folder, which changes
    # every later `ray start`; with auth disabled anyone on the machine can run code in the tests' cluster.
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=secrets.token_hex(32),
)
os.environ.setdefault("MUJOCO_GL", "egl")
# A person's own settings: no test may read or write through them.
for name in (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_ID",
    "WM_HOME",
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN_PATH",
):
    os.environ.pop(name, None)

# Shapes in annotations become assertions, in the test run only. Must precede the first import of these modules.
install_import_hook(["wm.models", "wm.losses", "wm.planning", "wm.shortcut"], "beartype.beartype")


def _asked_for(config: pytest.Config, marker: str) -> bool:
    """True if the -m expression selects the marker by name."""
    expression = config.getoption("markexpr", default="")
    return marker in expression and f"not {marker}" not in expression


def pytest_configure(config: pytest.Config) -> None:
    if not _asked_for(config, "gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same numbers on a GPU box as on a laptop
    if not _asked_for(config, "network"):
        os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device is visible (ask with -m gpu)"))


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Every test starts from the same random state, and torch keeps to one thread, whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:  # a test of the config alone should not wait for torch
        torch = sys.modules["torch"]
        torch.manual_seed(0)
        torch.set_num_threads(1)


def load_golden(name: str) -> dict[str, Any]:
    """The arrays of tests/golden/<name>.npz, such as `dino_wm/cem`; a scalar or a string comes as its Python value."""
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        known = ", ".join(sorted(str(p.relative_to(GOLDEN).with_suffix("")) for p in GOLDEN.rglob("*.npz")))
        raise FileNotFoundError(f"no golden numbers '{name}'; there are: {known}")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] if arrays[key].ndim else arrays[key].item() for key in arrays.files}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """`golden("dino_wm/cem")["actions"]`: numbers that another implementation produced."""
    return load_golden


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One local Ray of four logical CPUs for the whole session; yields the `ray` module, connected.

    Its own address and folder, so that no other cluster on the machine answers; the dashboard is on, since without it a
    trial that the scheduler stops keeps its CPUs.
    """
    import ray

    folder = tempfile.mkdtemp(prefix="wmr-", dir="/tmp")  # short: a socket's path may have 107 characters
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=0,
        object_store_memory=512 * 2**20,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        _temp_dir=folder,
    )
    try:
        yield ray
    finally:
        ray.shutdown()  # ends what this init started, and nothing else; never `ray stop`
        shutil.rmtree(folder, ignore_errors=True)
