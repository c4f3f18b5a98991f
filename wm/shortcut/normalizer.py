"""A running root mean square for each kind of loss."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_SMALLEST = 1e-6  # a loss of exactly 0 would divide by 0


class RunningRms(nn.Module):
    """rms_k = max(floor, sqrt(mean of L_k^2 over past steps, weighed by decay^age)); 1 before the first.

    Args:
        num_kinds: how many losses have one each.
        decay: in [0, 1).
        floor: smallest rms; the losses are those of latents of unit variance.

    Source: Dreamer 4, arXiv 2509.24527 (losses divided by running estimates of their RMS); the decay and the floor are ours.
    """

    mean_square: Tensor
    weight: Tensor

    def __init__(self, num_kinds: int, decay: float, floor: float) -> None:
        super().__init__()
        self.decay = decay
        self.floor = max(floor, _SMALLEST)
        self.register_buffer("mean_square", torch.zeros(num_kinds))
        self.register_buffer("weight", torch.zeros(num_kinds))  # of all past steps, which approaches 1

    def forward(self) -> Float[Tensor, "K"]:
        """What to divide by, constant between updates. A copy, which a later update does not change."""
        rms = (self.mean_square / self.weight.clamp_min(1e-12)).sqrt()
        return torch.where(self.weight > 0, rms.clamp_min(self.floor), 1.0)

    @torch.no_grad()
    def update(self, losses: Float[Tensor, "K"], present: Bool[Tensor, "K"]) -> None:
        """After an optimiser step: its losses over the global batch. Kinds that were not `present` stay as they are."""
        rate = (1 - self.decay) * present
        self.mean_square += rate * (torch.where(present, losses, 0.0).square() - self.mean_square)
        self.weight += rate * (1 - self.weight)
