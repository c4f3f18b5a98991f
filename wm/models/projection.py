"""P: what turns an encoder's patch token into the latent that the predictor sees."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.config.model import LinearProjection, MlpProjection, NoProjection


class TokenCenter(nn.Module):
    """Tokens less the mean token of the training frames: a constant, kept with the weights.

    Args:
        dim: D.
    """

    mean: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, tokens: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """tokens - mean."""
        return tokens - self.mean

    def undo(self, tokens: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """tokens + mean."""
        return tokens + self.mean


def build_projection(config: NoProjection | LinearProjection | MlpProjection, in_dim: int) -> tuple[nn.Module, int]:
    """(the module, its output width).

    Args:
        in_dim: channels of a token, and of proprio where they are projected together.
    """
    if isinstance(config, NoProjection):
        return nn.Identity(), in_dim
    layers: list[nn.Module]
    if isinstance(config, LinearProjection):
        layers = [nn.Linear(in_dim, config.dim)]
    else:
        layers = [nn.Linear(in_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.dim)]
    if config.norm == "layernorm":
        layers.append(nn.LayerNorm(config.dim, elementwise_affine=False))
    return nn.Sequential(*layers), config.dim
