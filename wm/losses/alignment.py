"""Losses that tie latents to the true state. `readout` is W z, `state` the normalised state, one row a (clip, frame) pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wm.losses.precision import in_float32
from wm.losses.ranks import ALONE, Alone, weighted_mean


@in_float32
def state_mse_loss(
    readout: Float[Tensor, "N S"], state: Float[Tensor, "N S"], weights: Float[Tensor, "N"], ranks: Alone = ALONE
) -> Float[Tensor, ""]:
    """|| W z - s ||^2 / S, weighted mean over rows."""
    return weighted_mean((readout - state).square().mean(dim=-1), weights, ranks)


@in_float32
def infonce_loss(
    readout: Float[Tensor, "N S"],
    state: Float[Tensor, "N S"],
    weights: Float[Tensor, "N"],
    temperature: float,
    similarity: str,
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """Cross-entropy of each row's own state among all workers' states: -log softmax_j(sim(W z_i, s_j) / temperature)[i].

    States are data, so gathering them needs no gradient.

    Args:
        weights: rows of weight 0 are neither anchors nor candidates.
        similarity: `cosine`, or `neg_l2` = -|| W z_i - s_j ||.

    Source: van den Oord et al., arXiv 1807.03748, eq. 4.
    """
    candidates, first = ranks.gather(state)
    counted, _ = ranks.gather(weights)
    if similarity == "cosine":
        logits = F.normalize(readout, dim=-1) @ F.normalize(candidates, dim=-1).T
    elif similarity == "neg_l2":
        # Squared through the product: cdist has no gradient at 0.
        squared = readout.square().sum(-1)[:, None] + candidates.square().sum(-1)[None] - 2 * readout @ candidates.T
        logits = -(squared.clamp_min(0) + 1e-8).sqrt()
    else:
        raise ValueError(f"unknown similarity '{similarity}'")
    logits = (logits / temperature).masked_fill(counted[None] == 0, float("-inf"))
    # A row of weight 0 has its own candidate masked: any finite target will do, its loss counts for nothing.
    logits = torch.where((weights > 0)[:, None], logits, 0.0)
    own = first + torch.arange(len(readout), device=readout.device)
    return weighted_mean(F.cross_entropy(logits, own, reduction="none"), weights, ranks)
