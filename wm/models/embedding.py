"""Actions and proprioception as channels or tokens of a frame."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wm.types import adapter_columns


class VectorEmbedding(nn.Module):
    """A Linear over time (the reference's Conv1d with kernel 1), and one learned null vector for rows without a label.

    Args:
        repeat: the embedded vector this often in a row (abcabc), as the reference tiles it.
        adapters: sizes of other vectors, by name. Each has a Linear of its own, into the same channels.
    """

    def __init__(self, in_dim: int, dim: int, repeat: int = 1, adapters: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.repeat = repeat
        self.linear = nn.Linear(in_dim, dim)
        self.null = nn.Parameter(torch.zeros(dim))
        columns = adapter_columns(in_dim, adapters or {})
        self._sizes = [in_dim, *(part.stop - part.start for part in columns.values())]
        # Random numbers of their own: the rest of the model starts from the same weights with and without them.
        with torch.random.fork_rng(devices=[]):
            # The column that marks a row is its bias, beside the one that all share. Not every name may be a module's: of_X.
            self.adapters = nn.ModuleDict(
                {f"of_{name}": nn.Linear(part.stop - part.start, dim, bias=False) for name, part in columns.items()}
            )

    @property
    def width(self) -> int:
        """Channels of what `forward` returns."""
        return self.dim * self.repeat

    def forward(
        self, values: Float[Tensor, "B T I"], present: Bool[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T E"]:
        embedded = self._linear(values)
        if present is not None:
            embedded = torch.where(present[:, None, None], embedded, self.null)
        return embedded.repeat(1, 1, self.repeat)

    def _linear(self, values: Float[Tensor, "B T I"]) -> Float[Tensor, "B T E"]:
        if values.shape[-1] == self.linear.in_features:  # a planner's actions, and all where there is no adapter
            return self.linear(values)
        own, *others = values.split(self._sizes, dim=-1)
        embedded = self.linear(own)
        for adapter, columns in zip(self.adapters.values(), others, strict=True):
            embedded = embedded + adapter(columns)
        return embedded

    def absent(self, batch: int, frames: int) -> Float[Tensor, "B T E"]:
        """The null vector for rows of which none has a label."""
        return self.null.repeat(self.repeat).expand(batch, frames, -1)


def tile(vectors: Float[Tensor, "B T E"], tokens: int) -> Float[Tensor, "B T P E"]:
    """The same vector on every patch of its frame."""
    return vectors[:, :, None].expand(-1, -1, tokens, -1)
