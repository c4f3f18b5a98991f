"""Small runs of the shortcut models, over the data set that tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.wm.data.samples import SIZE, encoder, wall_folder
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.training_run import RunInputs


def config(variant: str, **values: Any) -> ExperimentConfig:
    """Two sources of the same frames, one of them without labels."""
    small = {
        "data.sources.wall": {"kind": "dino_wm", "path": str(wall_folder())},
        "data.sources.video": {"kind": "dino_wm", "path": str(wall_folder()), "labels": "none"},
        "data.mixture": {"groups": {"labelled": ["wall"], "unlabelled": ["video"]}, "labelled_fraction": 0.5},
        "data.tokens": "online",
        "encoder": {"kind": "tiny", "image_size": SIZE, "hidden_size": 16, "depth": 1, "heads": 2},
        "model.variant": variant,
        "model.history_len": 2,
        "model.clip_frames": 4,
        "model.backbone": {
            "width": 16,
            "depth": 2,
            "heads": 2,
            "kv_heads": 1,
            "head_dim": 8,
            "registers": 1,
            "time_every": 2,
        },
        "train": {"batch_size": 4, "epochs": 2, "steps_per_epoch": 3, "device": "cpu"},
        "plan.world": {"kind": "wall", "frame_size": SIZE},
        "plan.planner": {"kind": "cem", "horizon": 2, "num_samples": 8, "num_elites": 2, "num_iterations": 2},
        "evaluate": {"horizons": [1, 2], "clips": 6, "probe_clips": 12, "grid": {"goal_horizons": [2]}},
    }
    if variant == "shortcut":
        small["model.forcing"] = {"k_max": 8, "bootstrap_fraction": 0.5}
    given = {path.replace("__", "."): value for path, value in values.items()}
    return resolve([Layer.from_tree("tests", small), Layer.from_tree("this test", given)])


def inputs(root: Path, variant: str, **values: Any) -> RunInputs:
    return RunInputs(config(variant, **values), root, encoder())
