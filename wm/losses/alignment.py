"""Losses that tie latents to the true state. `readout` is W z, `state` the normalised state, one row a (clip, frame) pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wm.losses.prediction import weighted_mean


def state_mse_loss(
    readout: Float[Tensor, "N S"], state: Float[Tensor, "N S"], weights: Float[Tensor, "N"]
) -> Float[Tensor, ""]:
    """|| W z - s ||^2 / S, weighted mean over rows."""
    return weighted_mean((readout - state).square().mean(dim=-1), weights)


def infonce_loss(
    readout: Float[Tensor, "N S"],
    state: Float[Tensor, "N S"],
    weights: Float[Tensor, "N"],
    temperature: float,
    similarity: str,
) -> Float[Tensor, ""]:
    """Cross-entropy of each row's own state among all states: -log softmax_j(sim(W z_i, s_j) / temperature)[i].

    Args:
        weights: rows of weight 0 are neither anchors nor candidates.
        similarity: `cosine`, or `neg_l2` = -|| W z_i - s_j ||.

    Source: van den Oord et al., arXiv 1807.03748, eq. 4.
    """
    if similarity == "cosine":
        logits = F.normalize(readout, dim=-1) @ F.normalize(state, dim=-1).T
    elif similarity == "neg_l2":
        # Squared through the product: cdist has no gradient at 0.
        squared = readout.square().sum(-1)[:, None] + state.square().sum(-1)[None] - 2 * readout @ state.T
        logits = -(squared.clamp_min(0) + 1e-8).sqrt()
    else:
        raise ValueError(f"unknown similarity '{similarity}'")
    logits = (logits / temperature).masked_fill(weights[None] == 0, float("-inf"))
    diagonal = torch.arange(len(logits), device=logits.device)
    present = weights > 0
    if not present.any():
        return readout.sum() * 0
    losses = F.cross_entropy(logits[present], diagonal[present], reduction="none")
    return weighted_mean(losses, weights[present])
