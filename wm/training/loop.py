"""The training loop. It knows batches, a model and a reporter; not Ray, not MLflow, not files of data."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from wm.config.errors import UserError, nearest
from wm.config.pretrain import AnyLoopConfig
from wm.contracts import Reporter
from wm.losses.ranks import current_ranks
from wm.models.trainable import Trainable
from wm.training.checkpoint import Checkpoint, best_of, list_checkpoints, load_checkpoint, save_checkpoint
from wm.training.determinism import deterministic
from wm.training.ema import WeightAverage
from wm.training.loss_module import LossModule
from wm.training.meter import Meter
from wm.training.micro_batch import MicroBatch
from wm.training.optimizer import build_optimizer, set_rates
from wm.training.precision import Precision
from wm.training.rng import restore_rng_state, rng_state
from wm.training.step import Step
from wm.training.verdict import training_warnings
from wm.types import Batch

LOG_EVERY_STEPS = 20
M = TypeVar("M", bound=Trainable)


@dataclass
class Training(Generic[M]):
    """One run: what to train, on what, and where it goes.

    Args:
        total_steps: optimiser steps in all; steps_per_epoch: for validation and checkpoints.
        batches: start step -> this rank's batches from there on, in schedule order.
        validate: metrics of a model on held-out clips, or None on ranks that do not validate.
        health: those of them that tell whether latents collapsed, taken before the first step.
        best_metric: the one of them whose best checkpoint is kept; None keeps only the newest.
        patience: end when so many validations in a row have not bettered it; None goes on to the last step.
        unsplittable: the term, if there is one, for which a batch cannot be computed in pieces: no mean over its clips.
        facts: config, statistics and fingerprints for the checkpoint.
        folder: where checkpoints lie, or None to keep none.
        wrap: distributed wrapper around the loss module.
        is_main: whether this rank writes checkpoints.
    """

    config: AnyLoopConfig
    model: M
    device: torch.device
    total_steps: int
    steps_per_epoch: int
    batches: Callable[[int], Iterator[Batch]]
    reporter: Reporter
    validate: Callable[[M], Mapping[str, float]] | None = None
    health: Callable[[M], Mapping[str, float]] | None = None
    best_metric: str | None = None
    patience: int | None = None
    unsplittable: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
    is_main: bool = True

    def run(self) -> list[dict[str, Any]]:
        """Train to the end from the newest whole checkpoint; returns the metric rows of the whole run.

        Raises UserError when the loss is no longer finite, and when not even one clip fits into memory.
        """
        with deterministic(self.config.deterministic):
            self._start()
            if not self._is_over:
                self._train()
        return self._history

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, over all resumes."""
        return self._elapsed_s

    def _start(self) -> None:
        model = self.model.to(self.device)
        if self.config.compile:
            model.hot_part.compile(dynamic=False)  # in place: the names of its weights stay what they were
        self._precision = Precision(self.config.precision, self.device)
        self._optimizer = build_optimizer(model, self.config.optimizer)
        self._average = WeightAverage(model, self.config.ema_decay) if self.config.ema_decay > 0 else None
        clips = self.config.batch_size // current_ranks().count
        self._micro_batch = MicroBatch(math.ceil(clips / self.config.accumulation), self.unsplittable, self.folder)
        losses = LossModule(model, self._precision)
        wrapped = self.wrap(losses)
        self._take_step = Step(self.config, losses, wrapped, self._optimizer, self._micro_batch, self.device).take
        self._step = 0
        self._elapsed_s = 0.0
        self._history: list[dict[str, Any]] = []
        self._warned: set[str] = set()
        self._health_at_start: dict[str, float] = {}
        checkpoint = self._newest_checkpoint()
        if checkpoint is not None:
            self._resume(checkpoint)
        elif self.health is not None:
            self._health_at_start = dict(self._measured(self.health))
        self._is_stalled = self._stalled()

    def _resume(self, checkpoint: Checkpoint) -> None:
        if checkpoint.facts.get("train_hash") != self.facts.get("train_hash"):
            raise UserError(f"{self.folder}: its checkpoints are of another run; give this one a folder of its own")
        self.model.load_state_dict(checkpoint.model)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        if self._average is not None and checkpoint.ema is not None:
            self._average.load(checkpoint.ema)
        self._precision.load(checkpoint.scaler)
        self._micro_batch.size = min(self._micro_batch.size, checkpoint.micro_batch or self._micro_batch.size)
        restore_rng_state(checkpoint.rng)
        self._step, self._elapsed_s, self._history = checkpoint.step, checkpoint.elapsed_s, checkpoint.history
        self._health_at_start = checkpoint.health_at_start
        self._warned = set(next((row["warnings"] for row in reversed(self._history) if "warnings" in row), {}))

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
        meter = Meter()
        for batch in self.batches(self._step):
            keep = self._keeps(self._step + 1)
            row = keep or (self._step + 1) % LOG_EVERY_STEPS == 0
            progress = self._step / self.total_steps
            set_rates(self._optimizer, self.config.optimizer, progress)
            parts, norms = self._take_step(batch, progress, row and self.config.log_gradient_norms)
            self._step += 1
            self.model.after_step(progress, parts, current_ranks())
            if self._average is not None:
                self._average.update(self.model)
            meter.add(parts)
            if row:
                metrics = {f"train/{name}": value for name, value in meter.take().items()}
                if not all(map(math.isfinite, metrics.values())):
                    raise UserError(f"step {self._step}: the loss is {metrics['train/loss']}; lower the learning rates")
                metrics |= {f"train/grad_norm/{name}".rstrip("/"): float(value) for name, value in norms.items()}
                now = time.monotonic()
                self._elapsed_s += now - counted_from
                counted_from = now
                self._finish_row(metrics, keep, (self._step - resumed_at) / (now - began))
            if self._is_over:
                return
        raise RuntimeError(f"the stream ended at step {self._step} of {self.total_steps}")

    @property
    def _is_over(self) -> bool:
        return self._step == self.total_steps or self._is_stalled

    def _stalled(self) -> bool:
        """Whether `patience` is at its end. Every worker must ask at the same steps: only the main one has validated."""
        if self.patience is None:
            return False
        best = None
        if self.best_metric is not None:
            best = best_of(self._history, self.best_metric, self.config.best_mode)
        validated = [row["step"] for row in self._history if self.best_metric in row["metrics"]]
        found = best is not None and sum(step > best.step for step in validated) >= self.patience
        return bool(current_ranks().mean(torch.tensor(float(found), device=self.device)) > 0)

    def _keeps(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        every = (self.total_steps, self.steps_per_epoch, self.config.checkpoint_every_steps)
        return any(step % steps == 0 for steps in every)

    def _finish_row(self, metrics: dict[str, float], keep: bool, speed: float) -> None:
        """A row of metrics; checkpoints fall on rows only, so that no half-summed loss is lost."""
        epoch, within = divmod(self._step, self.steps_per_epoch)
        row: dict[str, Any] = {"step": self._step, "epoch": epoch, "metrics": metrics}
        notes = self._micro_batch.take_changes()
        due = within == 0 and epoch % self.config.validate_every_epochs == 0
        if self.validate is not None and (due or self._step == self.total_steps):
            metrics |= self._measured(self.validate)
            self._check_best_metric(metrics)
            row["warnings"] = training_warnings(metrics, self._health_at_start)
            notes += [text for kind, text in row["warnings"].items() if kind not in self._warned]
            self._warned = set(row["warnings"])
        self._history.append(row)
        if due:
            self._is_stalled = self._stalled()
        path = self._save() if keep else None
        progress = {"train/steps_per_s": speed, "train/time_s": self._elapsed_s, "train/epoch": float(epoch)}
        self.reporter.report(self._step, {**metrics, **progress}, path, notes)

    def _measured(self, measure: Callable[[M], Mapping[str, float]]) -> Mapping[str, float]:
        """Of the averaged weights when there are some; in float32 and uncompiled, as planning runs them."""
        model = self.model
        if self._average is not None:
            model = copy.deepcopy(model)
            model.load_state_dict(self._average.shadow)
        with torch.compiler.set_stance("force_eager"):
            return measure(model)

    def _check_best_metric(self, metrics: Mapping[str, float]) -> None:
        if self.best_metric is not None and self.best_metric not in metrics:
            known = [name for name in metrics if name.startswith("val/")]
            raise UserError(
                f"train.best_metric: validation has no '{self.best_metric}'.{nearest(self.best_metric, known)}"
            )

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
            scaler=self._precision.state(),
            micro_batch=self._micro_batch.size,
            health_at_start=self._health_at_start,
            best=best_of(self._history, self.best_metric, self.config.best_mode) if self.best_metric else None,
        )
        return save_checkpoint(self.folder, checkpoint, self.config.keep_checkpoints)
