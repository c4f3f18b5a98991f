"""Projected latents must still explain the frozen encoder's tokens."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.losses.prediction import prediction_loss
from wm.losses.ranks import ALONE, Alone


def reconstruction_loss(
    reconstructed: Float[Tensor, "B T P D"],
    tokens: Float[Tensor, "B T P D"],
    weights: Float[Tensor, "B"],
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """MSE of R(P(x)) against the frozen tokens x, weighted mean over clips; the gradient reaches R and P."""
    return prediction_loss(reconstructed, tokens, weights, ranks=ranks)
