"""How far predicted latents are from the next frames' own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def prediction_loss(
    predicted: Float[Tensor, "B T P C"], target: Float[Tensor, "B T P C"], weights: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Mean squared error over frames, tokens and channels, weighted mean over clips; the target is detached here.

    The shapes must be equal: one target frame against T predicted ones would broadcast silently.

    Source: DINO-WM, arXiv 2411.04983, eq. 2.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape")
    per_clip = (predicted - target.detach()).square().flatten(1).mean(dim=1)
    return weighted_mean(per_clip, weights)


def weighted_mean(values: Float[Tensor, "B"], weights: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """sum(w x) / sum(w), 0 where every weight is 0."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-12)
