"""The floor's work is what torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from wm.config.backbone import BackboneConfig
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache
from wm.shortcut.cost import PassCost, frame_floor_s, pass_cost

C, P = 6, 5
# Torch counts nothing of the fused kernel that serves CPUs; with a cap attention is written out.
CONFIG = BackboneConfig(width=32, depth=6, heads=4, kv_heads=2, head_dim=8, registers=2, time_every=3, soft_cap=50.0)


def clip(frames: int, samples: int = 1) -> tuple[torch.Tensor, ...]:
    label = torch.ones(samples, frames, dtype=torch.long)
    return torch.randn(samples, frames, P, C), label, label, torch.randn(samples, frames, CONFIG.width)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_work_of_a_pass_is_what_torch_counts(samples: int) -> None:
    backbone = BlockCausalTransformer(CONFIG, C, P, 8).eval()
    cache = RingCache(backbone, 1, 16, torch.float32, torch.device("cpu"))
    backbone.step(*clip(7), cache, 7)
    shared = cache.shared(samples, 4)
    backbone.step(*clip(2, samples), shared, 2)
    with FlopCounterMode(display=False) as counter:
        backbone.step(*clip(1, samples), shared)
    weights = sum(p.numel() for p in backbone.parameters())
    found = pass_cost(CONFIG, C, P, num_weights=weights, prefix=7, suffix=2, num_samples=samples)
    assert found.flops == counter.get_total_flops()
    assert found.weight_bytes == 4 * weights
    ring = cache.num_bytes / cache.num_slots
    assert found.cache_bytes == pytest.approx(7 * ring + 2 * samples * ring)


def test_the_floor_is_the_slower_of_work_and_reading() -> None:
    cost = PassCost(flops=1e9, weight_bytes=4e6, cache_bytes=1e6)
    assert frame_floor_s(cost, 4, 1e12, 1e12) == pytest.approx(5e-3)
    assert frame_floor_s(cost, 4, 1e15, 1e9) == pytest.approx(2e-2)
