"""Whether latents still carry anything."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(latents: Float[Tensor, "N C"]) -> float:
    """exp of the entropy of the normalised singular values of the centred latents; between 1 and C, 0 when they are constant.

    Source: Roy and Vetterli, EUSIPCO 2007.
    """
    centred = latents.double() - latents.double().mean(dim=0)
    # Singular values from the C x C Gram matrix: N is large, C small.
    squared = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0)
    values = squared.sqrt()
    if values.sum() <= 1e-12:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))


def latent_health(visual: Float[Tensor, "B T P V"]) -> dict[str, float]:
    """`latent_std` (mean over channels), `latent_std_min`, `effective_rank` of patch latents."""
    rows = visual.flatten(0, 2)
    std = rows.std(dim=0)
    return {
        "latent_std": float(std.mean()),
        "latent_std_min": float(std.min()),
        "effective_rank": effective_rank(rows),
    }
