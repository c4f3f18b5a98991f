"""Rotary positions of frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Rotation(NamedTuple):
    """Cosine and sine of each frame's angles, (T, d/2) each."""

    cos: Tensor
    sin: Tensor


def rotation(start: int | Tensor, num_frames: int, head_dim: int, base: float, like: Tensor) -> Rotation:
    """theta_{t, i} = (start + t) base^{-2 i / d} for frames t and pairs of channels i.

    Args:
        start: position of the first frame; it may grow for ever, so the angles are computed in float64.
        base: > 1.
        like: its device, and its dtype if wider than float32.

    Source: RoFormer, arXiv 2104.09864, section 3.2.2; the position is the frame's, not the token's.
    """
    frames = start + torch.arange(num_frames, dtype=torch.float64, device=like.device)
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64, device=like.device)
    angles = frames[:, None] * base ** (-pairs / head_dim)
    dtype = torch.promote_types(like.dtype, torch.float32)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


def rotate(x: Float[Tensor, "*L T d"], by: Rotation) -> Float[Tensor, "*L T d"]:
    """Each pair (x_i, x_{i + d/2}) turned by theta_{t, i}: inner products then depend on differences of time only."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * by.cos - second * by.sin, second * by.cos + first * by.sin], dim=-1)
