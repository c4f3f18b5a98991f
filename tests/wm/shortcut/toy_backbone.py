"""A small backbone in float64 with an output that is not zero, and clips for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm.config.backbone import BackboneConfig
from wm.shortcut.backbone import BlockCausalTransformer

P, C, W, K_MAX = 5, 6, 32, 8
SHAPE: dict[str, Any] = {
    **{"width": W, "depth": 4, "heads": 4, "kv_heads": 2, "head_dim": 8, "registers": 2, "time_every": 2},
}
Clips = tuple[Tensor, Tensor, Tensor, Tensor]


def toy(**changed: Any) -> BlockCausalTransformer:
    torch.manual_seed(0)
    backbone = BlockCausalTransformer(BackboneConfig(**{**SHAPE, **changed}), C, P, K_MAX)
    nn.init.normal_(backbone.to_latents.weight)
    for name, scale in backbone.named_parameters():
        if name.endswith("scale"):
            nn.init.uniform_(scale, 0.5, 1.5)  # all 1 would hide a norm left out of place
    return backbone.double()


def clips(batch: int, frames: int, seed: int = 1) -> Clips:
    """Latents, levels, steps and actions."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, frames, P, C, generator=generator, dtype=torch.float64),
        torch.randint(0, K_MAX + 1, (batch, frames), generator=generator),
        2 ** torch.randint(0, 4, (batch, frames), generator=generator),
        torch.randn(batch, frames, W, generator=generator, dtype=torch.float64),
    )


def part(of: Clips, first: int, end: int) -> Clips:
    """Those frames of it."""
    latents, levels, steps, actions = (x[:, first:end] for x in of)
    return latents, levels, steps, actions


def joined(first: Clips, second: Clips) -> Clips:
    """One after the other."""
    latents, levels, steps, actions = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    return latents, levels, steps, actions


def repeated(of: Clips, times: int) -> Clips:
    """Each clip several times, one beside the other."""
    latents, levels, steps, actions = (x.repeat_interleave(times, dim=0) for x in of)
    return latents, levels, steps, actions
