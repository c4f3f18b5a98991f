"""One optimiser step on a global batch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from wm.config.pretrain import AnyLoopConfig
from wm.training.gradient_norms import term_gradient_norms
from wm.training.loss_module import LossModule, shares_of
from wm.training.micro_batch import MicroBatch
from wm.training.optimizer import clipped_apart
from wm.training.rng import restore_rng_state, rng_state
from wm.types import Batch


class Step:
    """Gradients of a batch piece by piece, clipped and applied.

    Args:
        losses: what is trained.
        wrapped: the same inside a distributed wrapper, or itself.
        micro_batch: how many clips at once; made smaller when memory runs out.
    """

    def __init__(
        self,
        config: AnyLoopConfig,
        losses: LossModule,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        micro_batch: MicroBatch,
        device: torch.device,
    ) -> None:
        self._clip_norm = config.optimizer.grad_clip_norm
        self._clipped = clipped_apart(losses.model)
        self._losses = losses
        self._wrapped = wrapped
        self._optimizer = optimizer
        self._micro_batch = micro_batch
        self._device = device

    def take(self, batch: Batch, progress: float, measure: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(loss and parts of this rank's clips, gradient norms if `measure`d). Raises what `MicroBatch.shrink` raises."""
        before = rng_state()
        while True:
            pieces = batch.chunks(self._micro_batch.size)
            shares = shares_of(pieces, self._device)
            try:
                norms = self._measure(pieces, shares, progress) if measure else {}
                parts = self._backward(pieces, shares, progress)
                break
            except torch.OutOfMemoryError as error:
                reason = str(error)
            # Outside the handler: the error holds the frames, and so the tensors, of the attempt.
            self._optimizer.zero_grad(set_to_none=True)
            self._micro_batch.shrink(batch.num_clips, reason)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            restore_rng_state(before)
        norm = self._apply(measure)
        return parts, norms if norm is None else {**norms, "": norm}

    def _measure(self, pieces: list[Batch], shares: list[Tensor], progress: float) -> dict[str, Tensor]:
        before = rng_state()
        moved = [piece.to(self._device) for piece in pieces]
        norms = term_gradient_norms(self._losses, moved, shares, progress)
        restore_rng_state(before)
        return norms

    def _backward(self, pieces: list[Batch], shares: list[Tensor], progress: float) -> dict[str, Tensor]:
        self._optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, (piece, share) in enumerate(zip(pieces, shares, strict=True), 1):
            wrapped: Any = self._wrapped
            # Ranks exchange gradients once a step, with the last piece.
            waits = number < len(pieces) and hasattr(wrapped, "no_sync")
            with wrapped.no_sync() if waits else nullcontext():
                total, parts = wrapped(piece.to(self._device), progress, share)
                self._losses.precision.scaler.scale(total).backward()
            for name, value in parts.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _apply(self, measure: bool) -> Tensor | None:
        """Clip, step; returns the norm of all gradients before clipping if `measure`d."""
        scaler, optimizer = self._losses.precision.scaler, self._optimizer
        scaler.unscale_(optimizer)
        norm = None
        if measure:
            norm = nn.utils.get_total_norm([p.grad for p in self._losses.parameters() if p.grad is not None])
        if self._clip_norm is not None:
            for parameters in self._clipped:
                nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return norm
