"""Softmax attention with grouped heads: fused where a kernel serves, written out where none does.

Shape legend: B batch, H query heads, G key-value heads (query head h uses key-value head h // (H / G)), N or Q queries, S keys,
T frames, d head dim.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


class Attended(NamedTuple):
    """Attention to one part of the keys.

    Args:
        out: (*L, H, Q, d), normalised over that part.
        log_sum: (*L, H, Q), log sum_s exp(logit_s) over that part, in float32 or wider.
    """

    out: Tensor
    log_sum: Tensor


def attend(
    q: Float[Tensor, "*L H Q d"],
    k: Float[Tensor, "*L G S d"],
    v: Float[Tensor, "*L G S d"],
    visible: Bool[Tensor, "Q S"] | None,
    soft_cap: float | None,
) -> Attended:
    """softmax(cap(q k^T / sqrt(d))) v, written out; cap(x) = c tanh(x / c).

    Args:
        visible: True = may attend; a query that sees nothing gets weight 0 in `merged`. None: all.
        soft_cap: c > 0, or None for no cap.

    Source: the cap is Gemma 2's, arXiv 2408.00118, section 2.
    """
    groups = q.shape[-3] // k.shape[-3]
    # The queries of a group stand in one row of blocks against the keys that they share, which are thus never repeated.
    grouped = q.unflatten(-3, (-1, groups)).flatten(-3, -2)
    logits = grouped @ k.mT * q.shape[-1] ** -0.5
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if soft_cap is not None:
        logits = soft_cap * (logits / soft_cap).tanh()
    if visible is not None:
        # The lowest finite number: -inf would make a row without keys NaN.
        logits = logits.masked_fill(~visible.repeat(groups, 1), torch.finfo(logits.dtype).min)
    log_sum = logits.logsumexp(dim=-1, keepdim=True)
    out = (logits - log_sum).exp().to(v.dtype) @ v
    apart = (groups, q.shape[-2])
    return Attended(
        out.unflatten(-2, apart).flatten(-4, -3),
        log_sum.squeeze(-1).unflatten(-1, apart).flatten(-3, -2),
    )


def merged(first: Attended, second: Attended) -> Float[Tensor, "*L H Q d"]:
    """Attention to the keys of both parts: sum_p exp(log_sum_p - log_sum) out_p, with log_sum over both; exact.

    Source: the merge of FlashDecoding and cascade attention (arXiv 2501.01005, section 2.2).
    """
    log_sum = torch.logaddexp(first.log_sum, second.log_sum)
    both = (part.out * (part.log_sum - log_sum).exp().unsqueeze(-1) for part in (first, second))
    return sum(both, start=torch.zeros((), dtype=log_sum.dtype, device=log_sum.device)).to(first.out.dtype)


@lru_cache(maxsize=16)
def band_mask(num_frames: int, window: int | None, device: torch.device) -> Bool[Tensor, "T T"]:
    """True where frame t may see frame s: 0 <= t - s < window."""
    frame = torch.arange(num_frames, device=device)
    age = frame[:, None] - frame[None, :]
    return (age >= 0) & (age < (window or num_frames))


def space_attention(
    q: Float[Tensor, "*L H N d"], k: Float[Tensor, "*L G N d"], v: Float[Tensor, "*L G N d"], soft_cap: float | None
) -> Float[Tensor, "*L H N d"]:
    """Every token of a frame sees every other; no mask tensor, which would switch the flash kernel off."""
    if soft_cap is not None:
        return attend(q, k, v, None, soft_cap).out
    return _fused(q, k, v)


def time_attention(
    q: Float[Tensor, "*L H T d"],
    k: Float[Tensor, "*L G T d"],
    v: Float[Tensor, "*L G T d"],
    window: int | None,
    soft_cap: float | None,
) -> Float[Tensor, "*L H T d"]:
    """A frame sees itself and earlier ones, `window` frames in all; None: all."""
    frames = q.shape[-2]
    if soft_cap is not None:
        return attend(q, k, v, band_mask(frames, window, q.device), soft_cap).out
    if window is None or frames <= window:
        return _fused(q, k, v, is_causal=True)
    return _fused(q, k, v, mask=band_mask(frames, window, q.device))


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    leading = q.shape[:-3]
    if mask is not None:
        # The one fused GPU kernel that takes a mask takes no groups.
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
    q, k, v = (x.flatten(0, -4) for x in (q, k, v))  # kernels want four axes
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, enable_gqa=True).unflatten(0, leading)
