"""The workers that share a global batch. A loss over it needs the rows and weights of all of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Alone:
    """One worker: its batch is the global batch."""

    @property
    def count(self) -> int:
        """How many workers there are."""
        return 1

    def mean(self, values: Tensor) -> Tensor:
        """The mean over workers, element by element. Without gradient."""
        return values.detach()

    def mean_total(self, weights: Tensor) -> Tensor:
        """Sum of the weights of all workers, divided by the number of workers."""
        return weights.sum()

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        """(every worker's rows below each other, where one's own begin). Without gradient."""
        return rows.detach(), 0


class Together(Alone):
    """All workers of torch's process group. Every one of them must ask for the same things in the same order."""

    @property
    def count(self) -> int:
        return dist.get_world_size()

    def mean(self, values: Tensor) -> Tensor:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    def mean_total(self, weights: Tensor) -> Tensor:
        return self.mean(weights.sum())

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts), dist.get_rank() * len(rows)


ALONE = Alone()


def current_ranks() -> Alone:
    """What this process belongs to."""
    return Together() if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 else ALONE


def weighted_mean(values: Tensor, weights: Tensor, ranks: Alone = ALONE) -> Tensor:
    """sum(w x) / sum(w) over the global batch, 0 where every weight is 0.

    The denominator is the mean of the workers' own, so that the mean of their gradients, which is what distributed training
    applies, is the gradient of the global batch even where labels lie unevenly.

    Args:
        values, weights: (N,).
    """
    return (values * weights).sum() / ranks.mean_total(weights).clamp_min(1e-12)
