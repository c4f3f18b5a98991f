"""What the KV cache of the shortcut model saves: a frame against its whole context, and a search whose samples share their past.

A small backbone on the CPU, float32, CPU seconds; medians of some calls. Ways must agree, or AssertionError.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from tests.benchmarks.row import Row
from wm.config.backbone import BackboneConfig
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache, SharedCache

CONFIG = BackboneConfig(width=128, depth=8, heads=4, kv_heads=2, head_dim=32, registers=2, window=64)
CHANNELS, PATCHES, K_MAX = 64, 16, 64
CONTEXT = 64
SAMPLES, HORIZON, PREFIX = 64, 5, 32
WINDOW = PREFIX + HORIZON  # of the search: nothing leaves it, and no slot is spare
CPU = torch.device("cpu")


def rows() -> list[Row]:
    """All of this file."""
    torch.manual_seed(0)
    backbone = BlockCausalTransformer(CONFIG, CHANNELS, PATCHES, K_MAX).eval()
    torch.nn.init.normal_(backbone.to_latents.weight, std=CONFIG.width**-0.5)
    return [*one_frame(backbone), *search(backbone)]


def one_frame(backbone: BlockCausalTransformer) -> list[Row]:
    """One denoising step of the last of CONTEXT frames."""
    clip = _frames(1, CONTEXT)
    cache = RingCache(backbone, 1, CONTEXT, torch.float32, CPU)
    backbone.step(*(x[:, :-1] for x in clip), cache, CONTEXT - 1)
    last = [x[:, -1:] for x in clip]

    def uncached() -> Tensor:
        with torch.no_grad():
            return backbone(*clip)[:, -1:]

    (expected, uncached_s), (found, cached_s) = _timed(uncached), _timed(lambda: backbone.step(*last, cache))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    name = f"a denoising step, context {CONTEXT}, {_size()}, cache {cache.num_bytes / 1e6:.1f} MB"
    return [Row(name, "uncached", uncached_s, "cached", cached_s, "CPU s")]


def search(backbone: BlockCausalTransformer) -> list[Row]:
    """SAMPLES rollouts of HORIZON frames behind a context of PREFIX: the context of each sample, against one that all share.

    A frame takes one denoising step, and its commit goes with the next frame's. The third way computes the context once but gives
    every sample a copy of its keys and values: what sharing saves when nothing is computed twice any more.
    """
    context, actions = _frames(1, PREFIX), _frames(SAMPLES, HORIZON)
    repeated = [x.expand(SAMPLES, *x.shape[1:]) for x in context]
    latest: dict[str, RingCache | SharedCache] = {}

    def rollout(cache: RingCache | SharedCache) -> Tensor:
        out, before = [], None
        for frame in range(HORIZON):
            new = [x[:, frame : frame + 1] for x in actions]
            both = new if before is None else [torch.cat(pair, dim=1) for pair in zip(before, new, strict=True)]
            out.append(backbone.step(*both, cache, both[0].shape[1] - 1)[:, -1:])
            before = [out[-1], torch.full_like(new[1], 58), torch.ones_like(new[2]), new[3]]
        return torch.cat(out, dim=1)

    def prefilled(clips: list[Tensor]) -> RingCache:
        cache = RingCache(backbone, len(clips[0]), WINDOW, torch.float32, CPU)
        backbone.step(*clips, cache, PREFIX)
        return cache

    def per_sample() -> Tensor:
        latest["per sample"] = cache = prefilled(repeated)
        return rollout(cache)

    def copied() -> Tensor:
        cache, one = RingCache(backbone, SAMPLES, WINDOW, torch.float32, CPU), prefilled(context)
        for layer in range(CONFIG.num_time_layers):
            cache._buffers.keys[layer].copy_(one._buffers.keys[layer])
            cache._buffers.values[layer].copy_(one._buffers.values[layer])
        cache.clock = one.clock
        return rollout(cache)

    def shared() -> Tensor:
        latest["prefix"] = prefix = prefilled(context)
        latest["shared"] = cache = prefix.shared(SAMPLES, HORIZON)
        return rollout(cache)

    def again() -> Tensor:
        cache = latest["shared"]
        cache.rewind()
        return rollout(cache)

    (expected, each_s), (second, copied_s), (found, shared_s), (once_more, again_s) = map(
        _timed, (per_sample, copied, shared, again)
    )
    for other in (second, found, once_more):
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-4)
    name = f"{SAMPLES} rollouts of {HORIZON} frames behind {PREFIX}, {_size()}"
    memory = [latest["per sample"].num_bytes / 1e6, (latest["prefix"].num_bytes + latest["shared"].num_bytes) / 1e6]
    return [
        Row(
            f"{name}: the first iteration", "a prefix computed per sample", each_s, "a shared prefix", shared_s, "CPU s"
        ),
        Row(
            f"{name}: the first iteration",
            "one prefix, copied per sample",
            copied_s,
            "a shared prefix",
            shared_s,
            "CPU s",
        ),
        Row(
            f"{name}: each later iteration",
            "one prefix, copied per sample",
            copied_s,
            "a shared prefix, rewound",
            again_s,
            "CPU s",
        ),
        Row(f"{name}: keys and values", "a prefix per sample", memory[0], "a shared prefix", memory[1], "MB"),
    ]


def _size() -> str:
    return f"{PATCHES} patches, width {CONFIG.width}, depth {CONFIG.depth}"


def _frames(batch: int, frames: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return [
        torch.randn(batch, frames, PATCHES, CHANNELS, generator=generator),
        torch.zeros(batch, frames, dtype=torch.long),
        torch.full((batch, frames), K_MAX),
        torch.randn(batch, frames, CONFIG.width, generator=generator),
    ]


def _timed(work: Callable[[], Tensor], repeats: int = 5) -> tuple[Tensor, float]:
    """What it returns, and the median of some calls after one that warms up."""
    found, taken = work(), []
    for _ in range(repeats):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return found, sorted(taken)[repeats // 2]
