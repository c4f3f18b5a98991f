"""The training loop. It knows batches, a model and a reporter; not Ray, not MLflow, not files of data."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm.config.errors import UserError
from wm.config.train import TrainConfig
from wm.contracts import Reporter
from wm.losses.ranks import current_ranks
from wm.models.world_model import WorldModel
from wm.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    restore_rng_state,
    rng_state,
    save_checkpoint,
)
from wm.training.ema import WeightAverage
from wm.training.optimizer import build_optimizer, clipped_apart, set_rates
from wm.types import Batch

LOG_EVERY_STEPS = 20


class LossModule(nn.Module):
    """The model's losses as a forward: what a distributed wrapper must see, or its gradients never synchronise."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.model.losses(batch, progress, current_ranks())
        return terms.total, dict(terms.parts)


@dataclass
class Training:
    """One run: what to train, on what, and where it goes.

    Args:
        total_steps: optimiser steps in all; steps_per_epoch: for validation and checkpoints.
        batches: start step -> this rank's batches from there on, in schedule order.
        validate: metrics of a model on held-out clips, or None on ranks that do not validate.
        facts: config, statistics and fingerprints for the checkpoint.
        folder: where checkpoints lie, or None to keep none.
        wrap: distributed wrapper around the loss module.
        is_main: whether this rank writes checkpoints.
    """

    config: TrainConfig
    model: WorldModel
    device: torch.device
    total_steps: int
    steps_per_epoch: int
    batches: Callable[[int], Iterator[Batch]]
    reporter: Reporter
    validate: Callable[[WorldModel], Mapping[str, float]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
    is_main: bool = True

    def run(self) -> list[dict[str, Any]]:
        """Train to the end from the newest whole checkpoint; returns the metric rows of the whole run.

        Raises UserError when the loss is no longer finite.
        """
        self._start()
        if self._step < self.total_steps:
            self._train()
        return self._history

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, over all resumes."""
        return self._elapsed_s

    def _start(self) -> None:
        model = self.model.to(self.device)
        self._losses = self.wrap(LossModule(model))
        self._optimizer = build_optimizer(model, self.config.optimizer)
        self._average = WeightAverage(model, self.config.ema_decay) if self.config.ema_decay > 0 else None
        self._step = 0
        self._elapsed_s = 0.0
        self._history: list[dict[str, Any]] = []
        checkpoint = self._newest_checkpoint()
        if checkpoint is None:
            return
        if checkpoint.facts.get("train_hash") != self.facts.get("train_hash"):
            raise UserError(f"{self.folder}: its checkpoints are of another run; give this one a folder of its own")
        model.load_state_dict(checkpoint.model)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if self._average is not None and checkpoint.ema is not None:
            self._average.load(checkpoint.ema)
        restore_rng_state(checkpoint.rng)
        self._step, self._elapsed_s, self._history = checkpoint.step, checkpoint.elapsed_s, checkpoint.history

    def _newest_checkpoint(self) -> Checkpoint | None:
        """The newest that reads back whole: one damaged by a crash of the machine falls back to the one before it."""
        found = [] if self.folder is None else list_checkpoints(self.folder)
        for number, path in enumerate(reversed(found)):
            try:
                return load_checkpoint(path)
            except UserError:
                if number == len(found) - 1:
                    raise
        return None

    def _train(self) -> None:
        self.model.train()
        resumed_at = self._step
        began = counted_from = time.monotonic()
        batches = self.batches(self._step)
        sums: dict[str, Tensor] = {}
        counted = 0
        for batch in batches:
            progress = self._step / self.total_steps
            set_rates(self._optimizer, self.config.optimizer, progress)
            total, parts = self._losses(batch.to(self.device), progress)
            self._optimizer.zero_grad(set_to_none=True)
            total.backward()
            self._clip_gradients()
            self._optimizer.step()
            self._step += 1
            if self._average is not None:
                self._average.update(self.model)
            for name, value in {"loss": total.detach(), **parts}.items():
                sums[name] = sums[name] + value if name in sums else value
            counted += 1
            done = self._step == self.total_steps
            keep = done or any(
                self._step % every == 0 for every in (self.steps_per_epoch, self.config.checkpoint_every_steps)
            )
            if keep or self._step % LOG_EVERY_STEPS == 0:
                metrics = {f"train/{name}": float(value) / counted for name, value in sums.items()}
                if not all(map(math.isfinite, metrics.values())):
                    raise UserError(f"step {self._step}: the loss is {metrics['train/loss']}; lower the learning rates")
                sums, counted = {}, 0
                now = time.monotonic()
                self._elapsed_s += now - counted_from
                counted_from = now
                self._finish_row(metrics, keep, (self._step - resumed_at) / (now - began))
            if done:
                return
        raise RuntimeError(f"the stream ended at step {self._step} of {self.total_steps}")

    def _finish_row(self, metrics: dict[str, float], keep: bool, speed: float) -> None:
        """A row of metrics; checkpoints fall on rows only, so that no half-summed loss is lost."""
        epoch, within = divmod(self._step, self.steps_per_epoch)
        due = within == 0 and epoch % self.config.validate_every_epochs == 0
        if self.validate is not None and (due or self._step == self.total_steps):
            metrics |= self.validate(self._evaluated_model())
        self._history.append({"step": self._step, "epoch": epoch, "metrics": metrics})
        path = self._save() if keep else None
        progress = {"train/steps_per_s": speed, "train/time_s": self._elapsed_s, "train/epoch": float(epoch)}
        self.reporter.report(self._step, {**metrics, **progress}, path)

    def _clip_gradients(self) -> None:
        norm = self.config.optimizer.grad_clip_norm
        if norm is not None:
            for parameters in clipped_apart(self.model):
                nn.utils.clip_grad_norm_(parameters, norm)

    def _evaluated_model(self) -> WorldModel:
        """The model with averaged weights when there are some."""
        if self._average is None:
            return self.model
        averaged = copy.deepcopy(self.model)
        averaged.load_state_dict(self._average.shadow)
        return averaged

    def _save(self) -> Path | None:
        if self.folder is None or not self.is_main:
            return None
        checkpoint = Checkpoint(
            step=self._step,
            model=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            rng=rng_state(),
            facts=self.facts,
            history=self._history,
            ema=None if self._average is None else self._average.shadow,
            elapsed_s=self._elapsed_s,
        )
        return save_checkpoint(self.folder, checkpoint, self.config.keep_checkpoints)
