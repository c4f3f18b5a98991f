"""A training of a very small encoder on the tests' Wall data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.wm.data.samples import wall_folder
from wm.config.pretrain import PretrainConfig
from wm.pretraining_run import Judge, PretrainInputs
from wm.training.reporter import NullReporter
from wm.types import Batch

TOTAL = 6


class Interrupted(Exception):
    pass


def config(**changes: Any) -> PretrainConfig:
    """`train__epochs=3` changes what is nested."""
    tree: dict[str, Any] = {
        "data": {
            "sources": {"wall": {"kind": "dino_wm", "path": str(wall_folder())}},
            "val_fraction": 0.2,
            "clip": {"frameskip": 2},
        },
        "encoder": {"image_size": 28, "hidden_size": 16, "depth": 1, "heads": 2},
        "clip_frames": 3,
        "distillation": {"prototypes": 8, "head_hidden": 8, "head_dim": 4},
        "train": {"batch_size": 4, "epochs": 3, "steps_per_epoch": 2, "checkpoint_every_steps": 1},
    }
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = tree
        for step in parents:
            node = node.setdefault(step, {})
        node[leaf] = value
    return PretrainConfig.model_validate(tree)


def inputs(root: Path, **changes: Any) -> PretrainInputs:
    return PretrainInputs(config(**changes), root)


def train(run: PretrainInputs, judge: Judge | None = None, until: int | None = None) -> list[dict[str, Any]]:
    """To the end, or to death while the batch after step `until` is fetched."""

    def batches(start: int) -> Iterator[Batch]:
        for number, batch in enumerate(run.local_batches(start), start):
            if number == until:
                raise Interrupted
            yield batch

    return run.training(NullReporter(), batches, judge=judge).run()
