"""A codebook that follows the latents it is shown."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DECAY = 0.99
_EPSILON = 1e-5


class Codebook(nn.Module):
    """Rounds vectors to the nearest of K codes, which are running means of the vectors that were rounded to them.

    In training, with n_k the vectors of code k and m_k their sum: N_k <- d N_k + (1 - d) n_k, M_k <- d M_k + (1 - d) m_k,
    e_k = M_k / N'_k with N' = (N + eps) / (sum N + K eps) sum N, so that a code nobody uses divides by more than 0.
    Codes are buffers: they are in the checkpoint, and no optimiser moves them.

    Args:
        dim: V of a vector.
        num_codes: K.

    Source: van den Oord et al., arXiv 1711.00937, appendix A.1.
    """

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor

    def __init__(self, dim: int, num_codes: int) -> None:
        super().__init__()
        codes = torch.randn(dim, num_codes)
        self.register_buffer("embed", codes)
        self.register_buffer("cluster_size", torch.zeros(num_codes))
        self.register_buffer("embed_avg", codes.clone())

    def forward(self, vectors: Float[Tensor, "*rows V"]) -> tuple[Float[Tensor, "*rows V"], Float[Tensor, ""]]:
        """(the nearest codes, with the gradient of the vectors themselves; mean squared distance, gradient to the vectors)."""
        rows = vectors.detach().flatten(0, -2)
        nearest = (self.embed.square().sum(dim=0) - 2 * rows @ self.embed).argmin(dim=1)
        codes = self.embed.T[nearest].view_as(vectors)
        if self.training:
            self._follow(rows, nearest)
        distance = (codes - vectors).square().mean()
        return vectors + (codes - vectors).detach(), distance

    @torch.no_grad()
    def _follow(self, rows: Float[Tensor, "N V"], nearest: Tensor) -> None:
        sizes = torch.zeros_like(self.cluster_size).index_add_(0, nearest, rows.new_ones(len(rows)))
        sums = torch.zeros_like(self.embed_avg).index_add_(1, nearest, rows.T)
        self.cluster_size.lerp_(sizes, 1 - _DECAY)
        self.embed_avg.lerp_(sums, 1 - _DECAY)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + _EPSILON) / (total + len(sizes) * _EPSILON) * total
        self.embed.copy_(self.embed_avg / smoothed)
