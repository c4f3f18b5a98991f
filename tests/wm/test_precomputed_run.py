"""A whole run on recorded features: trained, validated, loaded; what needs pixels refuses in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import user_error
from wm.build import build_dataset, build_encoder, load, plan
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.evaluation.retrieval import FrameBank, imagined_strip
from wm.training.reporter import ListReporter
from wm.training_run import RunInputs

ENCODER = {"kind": "precomputed", "provenance": "a rotation of the state", "dim": 6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """s' = s + .3 a, features a fixed rotation of s: what a linear model could learn."""
    root = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(12, 40, 2)).astype(np.float32)
    states = np.cumsum(0.3 * actions, axis=1, dtype=np.float32) - 0.3 * actions
    features = (states @ rng.normal(size=(2, 6))).astype(np.float16)
    (root / "data" / "maze").mkdir(parents=True)
    np.savez(root / "data" / "maze" / "features.npz", features=features, states=states, actions=actions)
    return root


def config(variant: str = "baseline", **values: Any) -> ExperimentConfig:
    small: dict[str, Any] = {
        "data.sources.maze": {"kind": "precomputed", "path": "maze", "state_names": ["x", "y"]},
        "data.held_out_last": 3,
        "data.clip.frameskip": 2,
        "encoder": ENCODER,
        "model.variant": variant,
        "model.history_len": 1,
        "model.proprio": "none",
        "model.predictor": {"depth": 1, "heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.0},
        "plan.objective.alpha": 0.0,
        "train": {"batch_size": 64, "epochs": 1, "steps_per_epoch": 200, "device": "cpu"},
        "train.optimizer": {"predictor_lr": 3e-3, "embedding_lr": 3e-3, "head_lr": 3e-3},
        "evaluate": {"horizons": [1, 3], "clips": 32, "probe_clips": 64},
    }
    if variant != "baseline":
        small |= {"model.projection.dim": 8}
    given = {path.replace("__", "."): value for path, value in values.items()}
    return resolve([Layer.from_tree("tests", small), Layer.from_tree("this test", given)])


@pytest.fixture(scope="module")
def trained(root: Path) -> RunInputs:
    run = RunInputs(config("align_recon"), root)
    run.training(ListReporter(), run.local_batches).run()
    return run


def test_it_learns_and_is_judged_on_held_out_episodes(trained: RunInputs) -> None:
    assert trained.dataset.held_out_episodes() == [("maze", 9), ("maze", 10), ("maze", 11)]
    metrics = trained.folder.history()[-1]["metrics"]
    assert metrics["val/copy_ratio_h1"] < 0.2
    assert metrics["val/state_probe_r2"] > 0.99


def test_no_token_store_is_written(trained: RunInputs) -> None:
    assert trained.dataset.stores == {}
    assert not (trained.root / "tokens").exists()


def test_a_loaded_run_imagines_tokens(trained: RunInputs) -> None:
    model = load(trained.folder.path)
    batch = trained.batch(list(trained.clips.schedule.batch_at(0)))
    future = model.rollout(batch.obs.slice(slice(1)), batch.actions)
    assert future.shape == (64, 2, 1, 8)
    assert torch.isfinite(future).all()


def test_what_needs_pixels_refuses_in_one_line(trained: RunInputs) -> None:
    model = load(trained.folder.path)
    frame = np.zeros((28, 28, 3), np.uint8)
    assert "encoder.kind=precomputed" in user_error(lambda: plan(model, frame, frame))
    clips = trained.dataset.held_out_clips(4).spread(1, 0)
    batch = trained.batch(clips)
    bank = FrameBank(model.model, trained.dataset, clips, batch)
    message = user_error(lambda: imagined_strip(model.model, trained.dataset, clips[0], batch, bank))
    assert "data.sources.maze: holds features, no frames" in message


def test_the_fingerprint_is_the_provenance() -> None:
    base = build_encoder(config().encoder).fingerprint
    assert build_encoder(config().encoder).fingerprint == base
    for change in ({"provenance": "DINOv2-S"}, {"dim": 12}, {"grid": [2, 1]}):
        values = {f"encoder__{key}": value for key, value in change.items()}
        assert build_encoder(config(**values).encoder).fingerprint != base


def test_another_shape_than_the_encoder_says_is_refused(root: Path) -> None:
    message = user_error(lambda: build_dataset(config(encoder__dim=7), root, ""))
    assert "data.sources.maze: 1 tokens of 6 channels a frame, but encoder.grid=[1, 1] and encoder.dim=7" in message


def test_features_and_frames_do_not_mix() -> None:
    with pytest.raises(UserError, match=r"data\.sources\.maze\.kind=precomputed does not go with encoder\.kind=tiny"):
        config(encoder__kind="tiny")
    wall = {"data__sources__wall": {"kind": "dino_wm", "path": "wall"}}
    with pytest.raises(
        UserError, match=r"data\.sources\.wall\.kind=dino_wm does not go with encoder\.kind=precomputed"
    ):
        config(**wall)


def test_provenance_must_be_said() -> None:
    tree = {"encoder.kind": "precomputed", "encoder.dim": 6}
    assert "encoder.provenance: must be given" in user_error(lambda: resolve([Layer.from_tree("spec", tree)]))
