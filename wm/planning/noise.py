"""Where a planner's randomness comes from: one callable, so that a test can inject recorded noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NoiseSource = Callable[[tuple[int, ...], torch.Generator], Tensor]
"""(shape, generator) -> float32 noise of that shape, drawn from the generator and nothing else."""


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) on the generator's own device: a CPU generator gives the same plan whatever device the model is on."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
