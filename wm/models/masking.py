"""Hiding patches of the predictor's input behind a learned token. Config and meaning: wm/config/masking.py."""

from __future__ import annotations

import math
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wm.config.errors import UserError
from wm.config.masking import BlockMasking, LearnedMasking, RandomMasking, TubeMasking

AnyMasking = RandomMasking | BlockMasking | TubeMasking | LearnedMasking


class TokenMasking(nn.Module):
    """Chooses patches and hides their content channels; actions and other tokens stay.

    Args:
        patches: P of whole frames; a square grid for `block`. dim: content channels.

    Raises UserError where the patches are too few, or no square, for the kind.
    """

    def __init__(self, config: AnyMasking, patches: int, dim: int) -> None:
        super().__init__()
        if patches < 2:
            raise UserError(
                f"model.masking.kind={config.kind}: the encoder gives one token a frame; there is nothing to hide it from"
            )
        if isinstance(config, BlockMasking) and math.isqrt(patches) ** 2 != patches:
            raise UserError(
                f"model.masking.kind=block: {patches} patches a frame are no square grid; take random or tube"
            )
        self.config = config
        self.token = nn.Parameter(torch.zeros(dim))
        self.score = nn.Linear(dim, 1) if isinstance(config, LearnedMasking) else None

    def forward(
        self, content: Float[Tensor, "B T N C"], count: int
    ) -> tuple[Float[Tensor, "B T N C"], Bool[Tensor, "B T {count}"]]:
        """(content with patches hidden, which ones); tokens beyond the first `count`, its patches, are never hidden."""
        patches = content[:, :, :count]
        hidden, keep = self.choose(patches)
        shown = keep[..., None] * patches + (1 - keep[..., None]) * self.token
        return torch.cat([shown, content[:, :, count:]], dim=2), hidden

    def num_hidden(self, patches: int) -> int:
        """How many of a frame's patches are hidden: at least one, never all."""
        return min(patches - 1, max(1, round(self.config.ratio * patches)))

    def choose(self, patches: Float[Tensor, "B T P C"]) -> tuple[Bool[Tensor, "B T P"], Float[Tensor, "B T P"]]:
        """(hidden, keep): keep is 1 - hidden, and carries the score's gradient where there is one."""
        batch, frames, count, _ = patches.shape
        device, num_hidden = patches.device, self.num_hidden(count)
        match self.config:
            case RandomMasking():
                hidden = _lowest(torch.rand(batch, frames, count, device=device), num_hidden)
            case TubeMasking():
                hidden = _lowest(torch.rand(batch, 1, count, device=device), num_hidden).expand(-1, frames, -1)
            case BlockMasking():
                hidden = _block(batch, frames, count, num_hidden, device)
            case LearnedMasking():
                return self._learned(patches)
            case _:
                assert_never(self.config)
        return hidden, (~hidden).to(patches.dtype)

    def _learned(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        assert self.score is not None
        # Detached: the score learns what to hide, the latent is not to hide from it.
        scores = self.score(patches.detach()).squeeze(-1)
        uniform = torch.rand_like(scores).clamp_(1e-6, 1 - 1e-6)
        noisy = scores - (-uniform.log()).log()
        hidden = _lowest(noisy.detach(), self.num_hidden(patches.shape[2]))
        soft = torch.sigmoid(noisy - noisy.detach().mean(dim=-1, keepdim=True))
        return hidden, (~hidden).to(patches.dtype) + soft - soft.detach()


def _lowest(scores: Tensor, count: int) -> Tensor:
    """(..., P) bool: the `count` lowest of each row."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argsort(dim=-1)[..., :count], True)


def _block(batch: int, frames: int, patches: int, count: int, device: torch.device) -> Tensor:
    """A square of the grid, its side the root of `count`, rounded; one place for each frame."""
    side = math.isqrt(patches)
    size = min(side, max(1, round(math.sqrt(count))))
    top, left = (torch.randint(side - size + 1, (batch, frames, 1), device=device) for _ in range(2))
    row, column = torch.arange(patches, device=device) // side, torch.arange(patches, device=device) % side
    return (row >= top) & (row < top + size) & (column >= left) & (column < left + size)
