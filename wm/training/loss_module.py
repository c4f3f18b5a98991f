"""The model's losses as a forward: what a distributed wrapper must see, or its gradients never synchronise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wm.losses.ranks import current_ranks
from wm.models.trainable import Trainable
from wm.training.precision import Precision
from wm.types import Batch, LossTerms

# What a term may count: every row, or only those with this label.
_LABELS = (None, "state", "actions")


class LossModule(nn.Module):
    """Loss of one piece of a batch, scaled so that the pieces add up to the loss of the whole."""

    def __init__(self, model: Trainable, precision: Precision) -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(
        self, batch: Batch, progress: float, shares: Float[Tensor, "3"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """(what to differentiate, its unweighted parts and `loss`, detached)."""
        terms = self.terms(batch, progress, shares)
        total = terms.total
        return total, {"loss": total.detach(), **terms.parts}

    def terms(self, batch: Batch, progress: float, shares: Float[Tensor, "3"]) -> LossTerms:
        """Every term times the share of the global batch's rows that it counts."""
        with self.precision.autocast():
            terms = self.model.losses(batch, progress, current_ranks())
        share = {name: shares[_LABELS.index(terms.label.get(name))] for name in {**terms.weighted, **terms.parts}}
        return LossTerms(
            {name: value * share[name] for name, value in terms.weighted.items()},
            {name: value * share[name] for name, value in terms.parts.items()},
            terms.label,
        )


def shares_of(pieces: list[Batch], device: torch.device) -> list[Float[Tensor, "3"]]:
    """For each piece and label, the weight of all workers' rows in their pieces of that number over that of the global batch.

    A term is a weighted mean over the rows that it counts, of all workers. Its mean over the global batch is the sum over pieces of
    share x mean over the piece, whatever rows carry the label. Where no row does, the share is that of the clips.
    """
    if len(pieces) == 1:
        return [torch.ones(len(_LABELS), device=device)]
    counted = current_ranks().mean(torch.stack([_row_weights(piece) for piece in pieces]).to(device))
    clips = torch.tensor([[float(piece.num_clips)] for piece in pieces], device=device)
    whole = counted.sum(dim=0)
    return list(torch.where(whole > 0, counted / whole.clamp_min(1e-12), clips / clips.sum()))


def _row_weights(piece: Batch) -> Float[Tensor, "3"]:
    weights = piece.weights
    return torch.stack([weights.sum(), (weights * piece.has_state).sum(), (weights * piece.has_actions).sum()])
