"""Losses on what the latent does over time, beside the prediction itself."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.losses.precision import in_float32
from wm.losses.ranks import ALONE, Alone, weighted_mean


@in_float32
def mean_latent_loss(
    predicted: Float[Tensor, "B T P V"],
    target: Float[Tensor, "B T P V"],
    weights: Float[Tensor, "B"],
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """|| mean_p z^ - mean_p z ||^2 / V: the patch mean of the predicted latent against the next frame's, which is detached."""
    return vector_loss(predicted.mean(dim=2), target.mean(dim=2), weights, ranks)


@in_float32
def vector_loss(
    predicted: Float[Tensor, "B T K"],
    target: Float[Tensor, "B T K"],
    weights: Float[Tensor, "B"],
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """|| o^ - o ||^2 / K over frames, weighted mean over clips; the target is detached."""
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape")
    return weighted_mean((predicted - target.detach()).square().flatten(1).mean(dim=1), weights, ranks)
