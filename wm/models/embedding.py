"""Actions and proprioception as channels or tokens of a frame."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class VectorEmbedding(nn.Module):
    """A Linear over time (the reference's Conv1d with kernel 1), and one learned null vector for rows without a label.

    Args:
        repeat: the embedded vector this often in a row (abcabc), as the reference tiles it.
    """

    def __init__(self, in_dim: int, dim: int, repeat: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.repeat = repeat
        self.linear = nn.Linear(in_dim, dim)
        self.null = nn.Parameter(torch.zeros(dim))

    @property
    def width(self) -> int:
        """Channels of what `forward` returns."""
        return self.dim * self.repeat

    def forward(
        self, values: Float[Tensor, "B T I"], present: Bool[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T E"]:
        embedded = self.linear(values)
        if present is not None:
            embedded = torch.where(present[:, None, None], embedded, self.null)
        return embedded.repeat(1, 1, self.repeat)

    def absent(self, batch: int, frames: int) -> Float[Tensor, "B T E"]:
        """The null vector for rows of which none has a label."""
        return self.null.repeat(self.repeat).expand(batch, frames, -1)


def tile(vectors: Float[Tensor, "B T E"], tokens: int) -> Float[Tensor, "B T P E"]:
    """The same vector on every patch of its frame."""
    return vectors[:, :, None].expand(-1, -1, tokens, -1)
