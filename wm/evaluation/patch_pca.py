"""Patch latents as colours: their first three principal components."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_TAIL = 0.01  # share of values beyond the ends of the colour scale, on either side


def patch_colours(
    truth: Float[Tensor, "T P V"], other: Float[Tensor, "R P V"]
) -> tuple[Float[np.ndarray, "T s s 3"], Float[np.ndarray, "R s s 3"]]:
    """Both in [0, 1], on the axes and the scale of `truth`: equal latents have equal colours.

    Red, green and blue are the first three components of the centred patches of `truth`; fewer channels leave colours at 0.
    An axis points where its largest entry is positive.

    Raises:
        ValueError: the patches are no square.
    """
    side = math.isqrt(truth.shape[1])
    if side**2 != truth.shape[1]:
        raise ValueError(f"{truth.shape[1]} patches are no square")
    rows = truth.flatten(0, 1).double().cpu()
    mean = rows.mean(dim=0)
    _, _, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    axes = axes[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    places = (rows - mean) @ axes.T
    low, high = (torch.quantile(places, share, dim=0) for share in (_TAIL, 1 - _TAIL))

    def colours(latents: Tensor) -> np.ndarray:
        found = (latents.flatten(0, 1).double().cpu() - mean) @ axes.T
        scaled = ((found - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        padded = torch.nn.functional.pad(scaled, (0, 3 - scaled.shape[1]))
        return padded.view(-1, side, side, 3).float().numpy()

    return colours(truth), colours(other)
