"""How hard each loss term pulls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wm.training.loss_module import LossModule
from wm.types import Batch


def term_gradient_norms(
    losses: LossModule,
    pieces: Sequence[Batch],
    shares: Sequence[Float[Tensor, "3"]],
    progress: float,
) -> dict[str, Float[Tensor, ""]]:
    """|| d (weighted term) / d (all parameters) ||_2 for each term of a batch in pieces.

    It leaves no gradient behind and goes past the distributed wrapper, so that training does not see it, apart from the random
    numbers it draws: the caller puts those back. Compiled networks run uncompiled here, for their graph is walked once a term.
    """
    parameters = [parameter for parameter in losses.model.parameters() if parameter.requires_grad]
    # Half-precision gradients vanish without the loss scale.
    scale = losses.precision.scaler.get_scale()
    summed: dict[str, list[Tensor]] = {}
    with torch.compiler.set_stance("force_eager"):
        for piece, share in zip(pieces, shares, strict=True):
            for name, term in losses.terms(piece, progress, share).weighted.items():
                gradients = _gradients(term * scale, parameters)
                known = summed.get(name)
                summed[name] = gradients if known is None else [a + b for a, b in zip(known, gradients, strict=True)]
    return {name: torch.nn.utils.get_total_norm(gradients) / scale for name, gradients in summed.items()}


def _gradients(term: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Zeros for what the term does not reach."""
    if not term.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(parameter) if value is None else value
        for parameter, value in zip(parameters, found, strict=True)
    ]
