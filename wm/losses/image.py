"""How far decoded pictures are from the frames."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wm.losses.precision import in_float32
from wm.losses.ranks import ALONE, Alone, weighted_mean


@in_float32
def image_loss(
    decoded: Float[Tensor, "B T 3 S S"],
    frames: Float[Tensor, "B T 3 S S"],
    weights: Float[Tensor, "B"],
    ranks: Alone = ALONE,
) -> Float[Tensor, ""]:
    """Mean squared error over frames, channels and pixels, weighted mean over clips.

    Args:
        decoded, frames: in [-1, 1].
    """
    return weighted_mean((decoded - frames).square().flatten(1).mean(dim=1), weights, ranks)
