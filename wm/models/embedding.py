"""Actions and proprioception as channels, tiled over a frame's patches."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class VectorEmbedding(nn.Module):
    """A Linear over time (the reference's Conv1d with kernel 1), and one learned null vector for rows without a label."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(in_dim, dim)
        self.null = nn.Parameter(torch.zeros(dim))

    def forward(
        self, values: Float[Tensor, "B T I"], present: Bool[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T E"]:
        embedded = self.linear(values)
        return embedded if present is None else torch.where(present[:, None, None], embedded, self.null)


def tile(vectors: Float[Tensor, "B T E"], tokens: int) -> Float[Tensor, "B T P E"]:
    """The same vector on every patch of its frame."""
    return vectors[:, :, None].expand(-1, -1, tokens, -1)
