"""How far predicted latents are from the next frames' own."""

from __future__ import annotations

from typing import Literal, assert_never

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wm.losses.precision import in_float32
from wm.losses.ranks import ALONE, Alone, weighted_mean

LatentLoss = Literal["mse", "l1", "smooth_l1", "cosine"]


@in_float32
def prediction_loss(
    predicted: Float[Tensor, "B T P C"],
    target: Float[Tensor, "B T P C"],
    weights: Float[Tensor, "B"],
    kind: LatentLoss = "mse",
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """Mean error over frames, tokens and channels, weighted mean over clips; the target is detached here.

    The shapes must be equal: one target frame against T predicted ones would broadcast silently.

    Source: DINO-WM, arXiv 2411.04983, eq. 2 (mse).
    """
    return weighted_mean(latent_errors(predicted, target.detach(), kind).flatten(1).mean(dim=1), weights, ranks)


@in_float32
def latent_errors(
    predicted: Float[Tensor, "B T P C"], target: Float[Tensor, "B T P C"], kind: LatentLoss
) -> Float[Tensor, "B T P"]:
    """Error of each token: mean over channels of d^2, |d| or Huber(d) with threshold 1; or 1 - cos(predicted, target)."""
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape")
    match kind:
        case "mse":
            return (predicted - target).square().mean(dim=-1)
        case "l1":
            return (predicted - target).abs().mean(dim=-1)
        case "smooth_l1":
            return F.smooth_l1_loss(predicted, target, reduction="none").mean(dim=-1)
        case "cosine":
            return 1 - F.cosine_similarity(predicted, target, dim=-1)
        case _:
            assert_never(kind)
