"""The causal ViT that advances latents.

Shape legend: B batch, T frames, P tokens a frame, D channels, h heads, d head dim.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wm.config.model import PredictorConfig

KeysValues = tuple[Tensor, Tensor]  # of one layer, each (B, h, T P, d)


def frame_causal_mask(num_frames: int, tokens_per_frame: int, device: torch.device | None = None) -> Tensor:
    """(T P, T P) bool, True = may attend: every token sees its own frame and earlier ones."""
    frame = torch.arange(num_frames, device=device).repeat_interleave(tokens_per_frame)
    return frame[:, None] >= frame[None, :]


class Attention(nn.Module):
    """Multi-head self-attention with its LayerNorm inside; no qkv bias.

    softmax(q k^T / sqrt(d)) v over the tokens of a query's own and of earlier frames. `plain` writes it out with a mask. `fused`
    gives torch's kernel one frame's queries at a time with the keys that they may see: no mask, which would switch its fast paths
    off, and no work on pairs that a mask would discard.
    """

    def __init__(self, dim: int, config: PredictorConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.dropout = config.dropout
        self.fused = config.attention == "fused"
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, inner * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(config.dropout))

    def forward(self, x: Float[Tensor, "B N D"], frames: int) -> Float[Tensor, "B N D"]:
        """`frames` T, with N = T P tokens, frame after frame."""
        q, k, v = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self._attend(q, k, v, frames)

    def extend(
        self, x: Float[Tensor, "B N D"], seen: KeysValues | None, frames: int, asked: int
    ) -> tuple[Float[Tensor, "B Q D"], KeysValues]:
        """The last `asked` tokens' output, after frames whose keys and values are known, and those of all `frames` frames."""
        inner = self.to_out[0].in_features
        weight, x = self.to_qkv.weight, self.norm(x)
        q = F.linear(x[:, -asked:], weight[:inner]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = F.linear(x, weight[inner:]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if seen is not None:
            k, v = (torch.cat(parts, dim=2) for parts in zip(seen, (k, v), strict=True))
        return self._attend(q, k, v, frames), (k, v)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
        """Of the last frames' queries, with the keys and values of `frames` frames."""
        attend = self._fused if self.fused else self._plain
        out = attend(q, k, v, frames, self.dropout if self.training else 0.0)
        return self.to_out(out.transpose(1, 2).flatten(2))

    @staticmethod
    def _plain(q: Tensor, k: Tensor, v: Tensor, frames: int, dropout: float) -> Tensor:
        mask = frame_causal_mask(frames, k.shape[2] // frames, q.device)[-q.shape[2] :]
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
        return F.dropout(scores.softmax(dim=-1), dropout) @ v

    @staticmethod
    def _fused(q: Tensor, k: Tensor, v: Tensor, frames: int, dropout: float) -> Tensor:
        tokens = k.shape[2] // frames
        earlier = k.shape[2] - q.shape[2]
        ends = range(earlier + tokens, k.shape[2] + 1, tokens)
        return torch.cat(
            [
                F.scaled_dot_product_attention(
                    q[:, :, end - earlier - tokens : end - earlier], k[:, :, :end], v[:, :, :end], dropout_p=dropout
                )
                for end in ends
            ],
            dim=2,
        )


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


def _block(attention: nn.Module, feed_forward: nn.Module, x: Tensor, frames: int) -> Tensor:
    x = attention(x, frames) + x
    return feed_forward(x) + x


def resize_grid(patches: Float[Tensor, "T P D"], count: int) -> Float[Tensor, "T Q D"]:
    """Vectors on a square grid, row after row, to another square grid of `count`: bicubic, antialiased when it gets smaller."""
    side, wanted = math.isqrt(patches.shape[1]), math.isqrt(count)
    if side**2 != patches.shape[1] or wanted**2 != count:
        raise ValueError(f"only square grids can be resized, not {patches.shape[1]} patches to {count}")
    grid = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", antialias=True, align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(1, 2)


class CausalPredictor(nn.Module):
    """Frame-block-causal ViT over flattened frames; slot k of its output predicts frame k + 1.

    Args:
        tokens_per_frame: patches, in a grid, and after them `others` (proprio, action).
        max_frames: H.

    Parameter names are the reference's (`pos_embedding`, `transformer.layers.{i}.0.to_qkv`, ...), so that its weights load.

    Source: DINO-WM, arXiv 2411.04983, section 3.2; gaoyuezhou/dino_wm models/vit.py (facts: SCIENCE section 1).
    """

    def __init__(
        self, dim: int, tokens_per_frame: int, max_frames: int, config: PredictorConfig, others: int = 0
    ) -> None:
        super().__init__()
        self.patches = tokens_per_frame - others
        self.tokens_per_frame = tokens_per_frame
        self.max_frames = max_frames
        self.checkpointing = config.checkpointing
        self.pos_embedding = nn.Parameter(torch.randn(1, max_frames * tokens_per_frame, dim))
        self.transformer = nn.Module()
        self.transformer.norm = nn.LayerNorm(dim)
        self.transformer.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, config), FeedForward(dim, config)]) for _ in range(config.depth)
        )

    def forward(self, latents: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P D"]:
        frames = latents.shape[1]
        if frames > self.max_frames:
            raise ValueError(f"the predictor sees at most {self.max_frames} frames, got {frames}")
        tokens = latents.shape[2]
        x = (latents + self._positions(tokens)[:, :frames]).flatten(1, 2)
        for attention, feed_forward in self.transformer.layers:  # type: ignore[misc]
            if self.checkpointing and self.training:
                x = checkpoint(_block, attention, feed_forward, x, frames, use_reentrant=False)
            else:
                x = _block(attention, feed_forward, x, frames)
        return self.transformer.norm(x).unflatten(1, (frames, tokens))  # type: ignore[operator]

    def extend(self, latents: Float[Tensor, "B T P D"], seen: list[KeysValues]) -> Float[Tensor, "B 1 P D"]:
        """The last slot of `forward` over the frames seen before and these: earlier frames attend to no later one, so theirs stand.

        Args:
            seen: keys and values of a call's frames, a pair a layer, for the next; empty before the first. Changed in place, and
                emptied once the window is full: the next one begins a frame later, where every frame has another slot.
        """
        _, frames, tokens, _ = latents.shape
        before = seen[0][0].shape[2] // tokens if seen else 0
        frames += before
        if frames > self.max_frames:
            raise ValueError(f"the predictor sees at most {self.max_frames} frames, got {frames}")
        x = (latents + self._positions(tokens)[:, before:frames]).flatten(1, 2)
        earlier, layers = [*seen], list(self.transformer.layers)  # type: ignore[arg-type]
        seen.clear()
        for number, (attention, feed_forward) in enumerate(layers):  # type: ignore[misc]
            # Behind the last layer nobody asks for the earlier frames.
            asked = tokens if number == len(layers) - 1 else x.shape[1]
            attended, known = attention.extend(x, earlier.pop(0) if earlier else None, frames, asked)
            x = attended + x[:, -asked:]
            x = feed_forward(x) + x
            if frames < self.max_frames:
                seen.append(known)
            del known
        return self.transformer.norm(x)[:, None]  # type: ignore[operator]

    def _positions(self, tokens: int) -> Float[Tensor, "1 T P D"]:
        """The position of each token of each frame; on another grid of patches than the model's own, resized to it."""
        own = self.pos_embedding.unflatten(1, (self.max_frames, self.tokens_per_frame))
        if tokens == self.tokens_per_frame:
            return own
        patches, others = own[0].split([self.patches, self.tokens_per_frame - self.patches], dim=1)
        resized = resize_grid(patches, tokens - others.shape[1])
        return torch.cat([resized, others], dim=1)[None]
