"""The causal ViT that advances latents.

Shape legend: B batch, T frames, P tokens a frame, D channels, h heads, d head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wm.config.model import PredictorConfig


def frame_causal_mask(num_frames: int, tokens_per_frame: int, device: torch.device | None = None) -> Tensor:
    """(T P, T P) bool, True = may attend: every token sees its own frame and earlier ones."""
    frame = torch.arange(num_frames, device=device).repeat_interleave(tokens_per_frame)
    return frame[:, None] >= frame[None, :]


class Attention(nn.Module):
    """Multi-head self-attention with its LayerNorm inside; no qkv bias."""

    def __init__(self, dim: int, config: PredictorConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.dropout = config.dropout
        self.fused = config.attention == "fused"
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, inner * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(config.dropout))

    def forward(self, x: Float[Tensor, "B N D"], mask: Tensor | None) -> Float[Tensor, "B N D"]:
        q, k, v = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        else:
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            out = F.dropout(scores.softmax(dim=-1), dropout) @ v
        return self.to_out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """LayerNorm, Linear, exact GELU, Linear, with dropout."""

    def __init__(self, dim: int, config: PredictorConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, config.mlp_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_dim, dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.net(x)


class CausalPredictor(nn.Module):
    """Frame-block-causal ViT over flattened frames; slot k of its output predicts frame k + 1.

    Parameter names are the reference's (`pos_embedding`, `transformer.layers.{i}.0.to_qkv`, ...), so that its weights load.

    Source: DINO-WM, arXiv 2411.04983, section 3.2; gaoyuezhou/dino_wm models/vit.py (facts: SCIENCE section 1).
    """

    def __init__(self, dim: int, tokens_per_frame: int, max_frames: int, config: PredictorConfig) -> None:
        super().__init__()
        self.tokens_per_frame = tokens_per_frame
        self.max_frames = max_frames
        self.pos_embedding = nn.Parameter(torch.randn(1, max_frames * tokens_per_frame, dim))
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = nn.Module()
        self.transformer.norm = nn.LayerNorm(dim)
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, config), FeedForward(dim, config)]) for _ in range(config.depth)
        )
        mask = frame_causal_mask(max_frames, tokens_per_frame)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, latents: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P D"]:
        frames = latents.shape[1]
        if frames > self.max_frames:
            raise ValueError(f"the predictor sees at most {self.max_frames} frames, got {frames}")
        x = latents.flatten(1, 2)
        length = x.shape[1]
        x = self.dropout(x + self.pos_embedding[:, :length])
        # One frame attends to all of itself: no mask, so the fused kernel needs none.
        mask = None if frames == 1 else self.mask[:length, :length]  # type: ignore[index]
        for attention, feed_forward in self.transformer.layers:  # type: ignore[misc]
            x = attention(x, mask) + x
            x = feed_forward(x) + x
        return self.transformer.norm(x).unflatten(1, (frames, self.tokens_per_frame))  # type: ignore[operator]
