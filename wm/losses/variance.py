"""Against latents that shrink to a point."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.losses.precision import in_float32


@in_float32
def variance_loss(latents: Float[Tensor, "B T P V"], target_std: float) -> Float[Tensor, ""]:
    """mean_c max(0, target - sqrt(var_c + 1e-4)), the variance of each channel over the worker's clips, frames and tokens.

    Source: VICReg, arXiv 2105.04906, eq. 1. Difference: tokens count as rows beside clips.
    """
    std = (latents.flatten(0, 2).var(dim=0) + 1e-4).sqrt()
    return (target_std - std).clamp_min(0).mean()
