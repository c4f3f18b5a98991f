"""A tiny Wall data set, made once a session, and the configs and runs that the tests build on it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.make_data import make_wall
from wm.build import build_encoder
from wm.config.data import DataConfig, DinoWmSourceConfig, PrecomputedSourceConfig
from wm.config.encoder import TinyEncoderConfig
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.contracts import Encoder
from wm.data.dataset import Dataset, open_source
from wm.data.sources.precomputed import PrecomputedSource
from wm.data.sources.wall_single import WallSingleSource
from wm.training.reporter import ListReporter, NullReporter
from wm.training_run import RunInputs

EPISODES, STEPS, SIZE = 12, 40, 28
NEEDS_FFMPEG = pytest.mark.skipif(
    shutil.which("ffmpeg") is None,
    reason="lerobot's own reader of videos needs the system's FFmpeg: apt-get install ffmpeg",
)
ENCODER = TinyEncoderConfig(image_size=SIZE, hidden_size=16, depth=1, heads=2)


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wm-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def wall_folder() -> Path:
    """The data set itself; nobody may write there."""
    folder = _scratch() / "data" / "wall"
    make_wall(folder, episodes=EPISODES, steps=STEPS, frame_size=SIZE, layout="random")
    return folder


def wall_copy(target: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(wall_folder(), target))


def wall_source(folder: Path | None = None, **config: Any) -> WallSingleSource:
    found = open_source(DinoWmSourceConfig(path="wall", **config), "wall", folder or wall_folder())
    assert isinstance(found, WallSingleSource)
    return found


def wall_root() -> Path:
    """A storage.root that holds the data set as data/wall."""
    return wall_folder().parents[1]


def wall_dataset(fingerprint: str | None = None, **config: Any) -> Dataset:
    sources = {"wall": DinoWmSourceConfig(path="wall")}
    return Dataset(DataConfig(**{"sources": sources, **config}), wall_root(), fingerprint)


@cache
def _feature_folder() -> Path:
    folder = _scratch() / "features"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"features": 5, "states": 3, "actions": 2}
    values = {key: rng.normal(size=(EPISODES, STEPS, size)).astype(np.float32) for key, size in sizes.items()}
    np.savez(folder / "features.npz", allow_pickle=False, **values)
    return folder


def feature_source(**config: Any) -> PrecomputedSource:
    """Features without pixels: one token of five channels a frame."""
    return PrecomputedSource(PrecomputedSourceConfig(path="features", **config), "features", _feature_folder())


@cache
def encoder() -> Encoder:
    return build_encoder(ENCODER)


def config(variant: str = "baseline", **values: Any) -> ExperimentConfig:
    """A run of a second; keys are paths with `__` for the dot."""
    small = {
        "data.sources.wall.path": "wall",
        "data.tokens": "online",
        "encoder": ENCODER.model_dump(),
        "model.variant": variant,
        "model.history_len": 2,
        "model.predictor": {"depth": 1, "heads": 2, "head_dim": 8, "mlp_dim": 16, "dropout": 0.1},
        "train": {"batch_size": 4, "epochs": 2, "steps_per_epoch": 3, "device": "cpu"},
        "plan.world": {"kind": "wall", "frame_size": SIZE, "layout": "random"},
        "plan.planner": {"kind": "cem", "horizon": 2, "num_samples": 8, "num_elites": 2, "num_iterations": 2},
        "evaluate": {"horizons": [1, 3], "clips": 6, "probe_clips": 12, "grid": {"goal_horizons": [2]}},
    }
    if variant != "baseline":
        small["model.projection.dim"] = 8
    given = {path.replace("__", "."): value for path, value in values.items()}
    return resolve([Layer.from_tree("tests", small), Layer.from_tree("this test", given)])


def inputs(root: Path, variant: str = "baseline", **values: Any) -> RunInputs:
    """A run with a storage.root of its own, over the shared data set."""
    path = {"data__sources__wall__path": str(wall_folder())}
    return RunInputs(config(variant, **path, **values), root, encoder())


def train(run: RunInputs, reporter: Any = None) -> list[dict[str, Any]]:
    return run.training(reporter or NullReporter(), run.local_batches).run()


@cache
def trained(variant: str) -> RunInputs:
    """One complete run of a variant; nobody may write there."""
    run = inputs(_scratch() / "trained" / variant, variant)
    train(run, ListReporter())
    return run


def refusal(call: Callable[[], Any]) -> str | None:
    """The one line that the call refuses with, or None if it succeeds; any other exception is a fault."""
    message = None
    try:
        call()
    except UserError as error:
        message = str(error)
    assert message is None or (message and "\n" not in message)
    return message


def user_error(call: Callable[[], Any]) -> str:
    """The one line that the call must refuse with."""
    message = refusal(call)
    assert message is not None, "no UserError was raised"
    return message


def same(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
