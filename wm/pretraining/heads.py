"""From features to logits over prototypes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def waist(in_dim: int, hidden: int, dim: int) -> nn.Sequential:
    """Two layers to a narrow space, weights drawn small."""
    first, second = nn.Linear(in_dim, hidden), nn.Linear(hidden, dim)
    for layer in (first, second):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.GELU(), second)


class PrototypeHead(nn.Module):
    """Cosine of a small network's output with each of K prototypes.

    Source: DINO (Caron et al. 2021), section 3.1 and appendix C: a narrow waist on the unit sphere, prototypes of norm 1.
    Differences: two layers, not three; no batch norm.
    """

    def __init__(self, in_dim: int, hidden: int, dim: int, prototypes: int) -> None:
        super().__init__()
        self.waist = waist(in_dim, hidden, dim)
        self.prototypes = nn.Parameter(torch.empty(prototypes, dim))
        nn.init.trunc_normal_(self.prototypes, std=1.0)

    def forward(self, features: Float[Tensor, "... D"]) -> Float[Tensor, "... K"]:
        """Logits in [-1, 1]."""
        place = functional.normalize(self.waist(features), dim=-1, eps=1e-6)
        return place @ functional.normalize(self.prototypes, dim=-1).T
