"""P: what turns an encoder's patch token into the latent that the predictor sees."""

from __future__ import annotations

from torch import nn

from wm.config.model import LinearProjection, MlpProjection, NoProjection


def build_projection(config: NoProjection | LinearProjection | MlpProjection, token_dim: int) -> tuple[nn.Module, int]:
    """(the module, its output width)."""
    if isinstance(config, NoProjection):
        return nn.Identity(), token_dim
    layers: list[nn.Module]
    if isinstance(config, LinearProjection):
        layers = [nn.Linear(token_dim, config.dim)]
    else:
        layers = [nn.Linear(token_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.dim)]
    if config.norm == "layernorm":
        layers.append(nn.LayerNorm(config.dim, elementwise_affine=False))
    return nn.Sequential(*layers), config.dim
