"""One optimiser step on a batch of the shared data set, with its insides in reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.wm.data.samples import inputs
from wm.models.world_model import WorldModel
from wm.training.loss_module import LossModule
from wm.training.micro_batch import MicroBatch
from wm.training.optimizer import build_optimizer
from wm.training.precision import Precision
from wm.training.reporter import NullReporter
from wm.training.step import Step
from wm.types import Batch

CPU = torch.device("cpu")


class OneStep:
    """A fresh model of a variant and what a step needs; dropout is off, so that pieces draw nothing."""

    def __init__(
        self, root: Path, variant: str = "align_recon", size: int = 6, unsplittable: str | None = None, **values: Any
    ) -> None:
        run = inputs(root, variant, **{"model__predictor__dropout": 0.0, "train__batch_size": 6, **values})
        training = run.training(NullReporter(), run.local_batches, keep_checkpoints=False)
        self.config = run.config.train
        self.model: WorldModel = training.model.train()
        self.batch: Batch = next(iter(run.local_batches(0)))
        self.losses = LossModule(self.model, Precision(self.config.precision, CPU))
        self.optimizer = build_optimizer(self.model, self.config.optimizer)
        self.micro_batch = MicroBatch(size, unsplittable, None)
        self.step = Step(self.config, self.losses, self.losses, self.optimizer, self.micro_batch, CPU)

    def take(self, batch: Batch | None = None, measure: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.step.take(self.batch if batch is None else batch, 0.5, measure)

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Of the last step: a step leaves them where they are."""
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}


def uneven(batch: Batch) -> Batch:
    """Clips of different weight, some without a state, some without actions: no two pieces count alike."""
    rows = torch.arange(batch.num_clips)
    return replace(batch, weights=1.0 + rows, has_state=rows % 3 == 0, has_actions=rows != 1)
