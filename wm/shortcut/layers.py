"""The two layers of the backbone: space within a frame, time across frames.

Shape legend: B batch, T frames, N tokens a frame, W width, H query heads, G key-value heads, d head dim.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wm.config.backbone import BackboneConfig
from wm.shortcut.attention import space_attention, time_attention
from wm.shortcut.rotary import Rotation, rotate


@runtime_checkable
class FrameCache(Protocol):
    """What a time layer asks of the frames before those at hand."""

    @property
    def clock(self) -> int | Tensor:
        """Position of the next frame."""
        ...

    def extend(
        self,
        layer: int,
        q: Float[Tensor, "B N H T d"],
        k: Float[Tensor, "B N G T d"],
        v: Float[Tensor, "B N G T d"],
        num_committed: int,
    ) -> Float[Tensor, "B N H T d"]:
        """Attention of new frames to those held and, causally, to each other; the first `num_committed` of them are kept."""
        ...

    def advance(self, num_frames: int) -> None:
        """Moves the clock, once all layers have kept those frames."""
        ...


class RmsNorm(nn.Module):
    """scale x / sqrt(mean(x^2) + eps) over the last axis.

    torch's own module wants weights of the input's dtype, which are not at hand under autocast.

    Source: arXiv 1910.07467, eq. 4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*L D"]) -> Float[Tensor, "*L D"]:
        return F.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), eps=1e-6)


class HeadProjection(nn.Module):
    """Queries, keys and values by head, the first two normalised over the head's channels with a learned scale (QK-norm).

    Source: arXiv 2302.05442, section 2; there LayerNorm, here RMS as in Dreamer 4 (arXiv 2509.24527).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.to_q = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.to_kv = nn.Linear(config.width, 2 * config.kv_heads * config.head_dim, bias=False)
        self.q_norm, self.k_norm = RmsNorm(config.head_dim), RmsNorm(config.head_dim)

    def forward(self, x: Float[Tensor, "*L N W"]) -> tuple[Tensor, Tensor, Tensor]:
        """(*L, H, N, d), (*L, G, N, d), (*L, G, N, d)."""
        q = self.q_norm(self.to_q(x).unflatten(-1, (self.heads, -1)))
        k, v = self.to_kv(x).unflatten(-1, (2, self.kv_heads, -1)).unbind(dim=-3)
        k = self.k_norm(k)
        # Norms may answer in float32 under autocast, and kernels want one dtype.
        return q.to(v.dtype).transpose(-3, -2), k.to(v.dtype).transpose(-3, -2), v.transpose(-3, -2)


class SwiGlu(nn.Module):
    """RMSNorm, then W3 (silu(W1 x) * W2 x), no biases.

    Source: arXiv 2002.05202, eq. 6.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.norm = RmsNorm(config.width)
        self.to_hidden = nn.Linear(config.width, 2 * config.mlp_dim, bias=False)
        self.to_out = nn.Linear(config.mlp_dim, config.width, bias=False)

    def forward(self, x: Float[Tensor, "*L W"]) -> Float[Tensor, "*L W"]:
        gate, value = self.to_hidden(self.norm(x)).chunk(2, dim=-1)
        return self.to_out(F.silu(gate) * value)


class _Layer(nn.Module):
    """What both kinds are made of; each adds its attention to x, then SwiGLU."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.soft_cap = config.soft_cap
        self.norm = RmsNorm(config.width)
        self.project = HeadProjection(config)
        self.to_out = nn.Linear(config.heads * config.head_dim, config.width, bias=False)
        self.feed_forward = SwiGlu(config)

    def _added(self, x: Tensor, heads: Tensor) -> Tensor:
        """`heads` (B, T, N, H, d)."""
        x = x + self.to_out(heads.flatten(-2))
        return x + self.feed_forward(x)


class SpaceLayer(_Layer):
    """Attention among all tokens of a frame; frames do not see each other."""

    def forward(self, x: Float[Tensor, "B T N W"]) -> Float[Tensor, "B T N W"]:
        q, k, v = self.project(self.norm(x))
        return self._added(x, space_attention(q, k, v, self.soft_cap).transpose(2, 3))


class TimeLayer(_Layer):
    """Causal attention across frames; each token position by itself.

    Args:
        index: which of the time layers this is, for the cache.
    """

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__(config)
        self.index = index
        self.window = config.window

    def forward(
        self, x: Float[Tensor, "B T N W"], rotation: Rotation, cache: FrameCache | None = None, num_committed: int = 0
    ) -> Float[Tensor, "B T N W"]:
        q, k, v = self.project(self.norm(x).transpose(1, 2))
        q, k = (rotate(of, rotation).to(v.dtype) for of in (q, k))
        if cache is None:
            heads = time_attention(q, k, v, self.window, self.soft_cap)
        else:
            heads = cache.extend(self.index, q, k, v, num_committed)
        return self._added(x, heads.permute(0, 3, 1, 2, 4))
