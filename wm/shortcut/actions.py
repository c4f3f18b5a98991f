"""A frame's action as one token of the backbone."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from wm.models.embedding import VectorEmbedding


class ActionToken(nn.Module):
    """Linear, SiLU, Linear over each action; one learned null action for all that is not known.

    Args:
        action_dim: A F, one model action.
        adapters: A F of the other action vectors that batches hold, by name.
    """

    def __init__(self, action_dim: int, hidden: int, width: int, adapters: Mapping[str, int]) -> None:
        super().__init__()
        self.embedding = VectorEmbedding(action_dim, hidden, adapters=adapters)
        self.out = nn.Linear(hidden, width)
        # As loud as the positions that are added to it, or nobody hears it: SiLU of such an embedding has a spread of about 0.3.
        nn.init.normal_(self.out.weight, std=3 * hidden**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, actions: Float[Tensor, "B T A"], known: Bool[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T W"]:
        """Rows that are not `known` get the null action; None: all are."""
        return self.out(functional.silu(self.embedding(actions.to(self.out.weight.dtype), known)))

    def null(self, batch: int, frames: int) -> Float[Tensor, "B T W"]:
        """The null action."""
        return self.out(functional.silu(self.embedding.absent(batch, frames)))
