"""A cached rollout computes what an uncached one does, however frames are given, kept and shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wm.shortcut.toy_backbone import K_MAX, Clips, clips, joined, part, repeated, toy
from wm.shortcut import cache as module
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache, SharedCache

WINDOW, T = 4, 14  # a ring of 3 slots that is written round more than four times
EXACT = {"rtol": 0, "atol": 1e-10}
WAYS: list[dict[str, Any]] = [{}, {"soft_cap": 2.0}]


def ring(backbone: BlockCausalTransformer, batch: int = 2, window: int = WINDOW) -> RingCache:
    return RingCache(backbone, batch, window, torch.float64, torch.device("cpu"))


def filled(backbone: BlockCausalTransformer, x: Clips, window: int = WINDOW) -> RingCache:
    """A ring with all of x, frame by frame."""
    cache = ring(backbone, len(x[0]), window)
    for frame in range(x[0].shape[1]):
        backbone.step(*part(x, frame, frame + 1), cache, 1)
    return cache


def kept(cache: RingCache | SharedCache) -> list[Tensor]:
    return [x.clone() for x in (*cache._buffers.keys, *cache._buffers.values)]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("given", [[1] * T, [2] * 7, [3, 1, 3, 3, 4], [5, 1, 8], [1, 13], [14]])
def test_any_portions_of_a_clip_are_the_clip(given, how):
    backbone, x = toy(window=WINDOW, **how), clips(2, T)
    cache, found, first = ring(backbone), [], 0
    for count in given:
        assert cache.clock == first
        found.append(backbone.step(*part(x, first, first + count), cache, count))
        first += count
    torch.testing.assert_close(torch.cat(found, dim=1), backbone(*x), **EXACT)


def test_a_ring_gives_a_backbone_without_a_window_that_window():
    x = clips(2, T)
    found = torch.cat(
        [toy().step(*part(x, t, t + 1), cache, 1) for cache in [ring(toy(), window=6)] for t in range(T)], dim=1
    )
    torch.testing.assert_close(found, toy(window=6)(*x), **EXACT)
    torch.testing.assert_close(found[:, :6], toy()(*x)[:, :6], **EXACT)
    assert (found - toy()(*x)).abs().max() > 1e-3


def test_a_rollout_on_its_own_predictions_is_the_uncached_one():
    """Noise is denoised, the result is committed as context, for more than three rounds of the ring."""
    backbone, (noise, levels, steps, actions) = toy(window=WINDOW), clips(2, T)
    context = torch.full_like(levels, K_MAX - 1)
    cache, ours, plain = ring(backbone), [], noise[:, :0]
    for t in range(T):
        now = slice(t, t + 1)
        ours.append(backbone.step(noise[:, now], levels[:, now], steps[:, now], actions[:, now], cache))
        backbone.step(ours[-1], context[:, now], steps[:, now], actions[:, now], cache, 1)
        labels = torch.cat([context[:, :t], levels[:, now]], dim=1)
        given = torch.cat([plain, noise[:, now]], dim=1)
        predicted = backbone(given, labels, steps[:, : t + 1], actions[:, : t + 1])[:, -1:]
        plain = torch.cat([plain, predicted], dim=1)
    torch.testing.assert_close(torch.cat(ours, dim=1), plain, **EXACT)


@pytest.mark.parametrize("held", [0, 2, 7])
def test_a_frame_that_is_not_committed_leaves_no_trace(held):
    backbone, x = toy(), clips(2, T)
    cache = filled(backbone, part(x, 0, held))
    before, clock = kept(cache), cache.clock
    first = backbone.step(*part(x, held, held + 2), cache)
    assert cache.clock == clock
    assert all(torch.equal(*pair) for pair in zip(before, kept(cache), strict=True))
    assert torch.equal(backbone.step(*part(x, held, held + 2), cache), first)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("held", "shares"), [(0, False), *((held, shares) for held in (2, 3, 7) for shares in (False, True))]
)
def test_a_commit_with_the_next_frames_denoising_is_two_passes(held, how, shares):
    backbone, x = toy(window=WINDOW, **how), clips(2, T)
    caches: list[Any] = [filled(backbone, part(x, 0, held)) for _ in range(2)]
    if shares:
        caches = [of.shared(num_samples=1, horizon=2) for of in caches]
    together = backbone.step(*part(x, held, held + 2), caches[0], 1)
    apart = [backbone.step(*part(x, held, held + 1), caches[1], 1)]
    apart.append(backbone.step(*part(x, held + 1, held + 2), caches[1]))
    torch.testing.assert_close(together, torch.cat(apart, dim=1), **EXACT)
    assert caches[0].clock == caches[1].clock == held + 1
    for ours, theirs in zip(kept(caches[0]), kept(caches[1]), strict=True):
        length = 1 if shares else WINDOW
        torch.testing.assert_close(ours[..., :length, :], theirs[..., :length, :], **EXACT)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("held", [1, 3, 8])
@pytest.mark.parametrize("portions", [[1] * 6, [2, 2, 2], [1, 3, 2], [6]])
def test_a_shared_prefix_is_the_prefix_repeated(portions, held, how):
    """2 clips, 3 samples of each; suffixes so long that the prefix leaves the window."""
    backbone, context, suffixes = toy(window=WINDOW, **how), clips(2, held), clips(6, 6, seed=2)
    expected = backbone(*joined(repeated(context, 3), suffixes))[:, held:]
    cache = filled(backbone, context).shared(num_samples=3, horizon=6)
    found, first = [], 0
    for count in portions:
        found.append(backbone.step(*part(suffixes, first, first + count), cache, count))
        first += count
    torch.testing.assert_close(torch.cat(found, dim=1), expected, **EXACT)


def test_a_prefix_serves_one_iteration_after_another_and_goes_on_with_the_clip():
    backbone, x = toy(window=WINDOW), clips(2, 8)
    prefix = filled(backbone, part(x, 0, 6))
    before, cache = kept(prefix), prefix.shared(num_samples=3, horizon=2)
    for held in (6, 7):
        for seed in (2, 3):
            suffixes = clips(6, 2, seed)
            cache.rewind()
            backbone.step(*part(suffixes, 0, 1), cache, 1)
            found = backbone.step(*part(suffixes, 1, 2), cache)
            whole = joined(repeated(part(x, 0, held), 3), suffixes)
            torch.testing.assert_close(found, backbone(*whole)[:, -1:], **EXACT)
        if held == 6:
            assert all(torch.equal(*pair) for pair in zip(before, kept(prefix), strict=True))
            backbone.step(*part(x, 6, 7), prefix, 1)


def test_the_prefix_is_stored_once_and_read_where_it_lies(monkeypatch):
    """Whatever the number of samples: every key that attention is given lies in the ring or in a suffix."""
    backbone = toy(window=8)
    prefix = filled(backbone, clips(1, 7), window=8)
    size = prefix.num_bytes
    per_frame = size // 7
    given: list[Tensor] = []
    attend = module.attend
    monkeypatch.setattr(module, "attend", lambda q, k, v, *rest: given.extend((k, v)) or attend(q, k, v, *rest))
    for num_samples in (1, 16):
        cache = prefix.shared(num_samples, horizon=2)
        given.clear()
        backbone.step(*clips(num_samples, 1), cache, 1)
        stored = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in given}
        own = [*prefix._buffers.keys, *prefix._buffers.values, *cache._buffers.keys, *cache._buffers.values]
        assert stored.keys() == {x.untyped_storage().data_ptr() for x in own}
        assert sum(stored.values()) == prefix.num_bytes + cache.num_bytes
        assert (prefix.num_bytes, cache.num_bytes) == (size, num_samples * 2 * per_frame)


def test_no_tensor_of_a_shared_step_is_as_large_as_a_prefix_per_sample():
    """Neither does the arithmetic repeat it on the way."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in (*args, out):
                if isinstance(x, Tensor):  # what a view repeats by a stride of zero is not stored
                    self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
            return out

    backbone = toy(window=256, depth=2)
    prefix = filled(backbone, clips(1, 1), window=256)
    backbone.step(*clips(1, 254), prefix, 254)
    cache = prefix.shared(num_samples=8, horizon=1)
    per_sample = prefix._buffers.keys[0].numel() * 8
    with Largest() as largest:
        backbone.step(*clips(8, 1), cache)
    assert largest.numel < per_sample / 1.9  # the logits, (1, 9, 2, 16, 255); keys and values would have 8 channels


def test_a_ring_is_allocated_once():
    backbone, x = toy(), clips(2, T)
    cache = ring(backbone)
    where = [x.data_ptr() for x in (*cache._buffers.keys, *cache._buffers.values)]
    assert cache.num_bytes == 2 * 2 * (2 * 9 * 2 * 3 * 8) * 8  # keys and values, layers, (B, N, G, S, d), float64
    for t in range(T):
        backbone.step(*part(x, t, t + 1), cache, 1)
    assert [x.data_ptr() for x in (*cache._buffers.keys, *cache._buffers.values)] == where


def test_bfloat16_under_autocast_is_near():
    backbone, x = toy(window=WINDOW).float(), clips(2, T)
    latents, levels, steps, actions = x[0].float(), x[1], x[2], x[3].float()
    exact = backbone(latents, levels, steps, actions)
    cache = RingCache(backbone, 2, WINDOW, torch.bfloat16, torch.device("cpu"))
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        for t in range(T):
            now = slice(t, t + 1)
            found.append(backbone.step(latents[:, now], levels[:, now], steps[:, now], actions[:, now], cache, 1))
    error = (torch.cat(found, dim=1).float() - exact).square().mean().sqrt() / exact.std()
    assert error < 0.03


def test_no_graph_is_built():
    backbone = toy()
    assert not backbone.step(*clips(2, 1), ring(backbone), 1).requires_grad


def test_what_would_be_silently_wrong_is_refused():
    backbone, x = toy(window=WINDOW), clips(2, 3)
    with pytest.raises(ValueError, match=r"window must be 2\.\.4, the backbone's own, not 5"):
        ring(backbone, window=5)
    with pytest.raises(ValueError, match=r"window must be 2\.\.any"):
        ring(toy(), window=1)
    prefix = ring(backbone)
    with pytest.raises(ValueError, match="the prefix is empty"):
        prefix.shared(2, 3)
    with pytest.raises(ValueError, match=r"num_committed must be 0\.\.3, the frames given, not 4"):
        backbone.step(*x, prefix, 4)
    backbone.step(*x, prefix, 3)
    cache = prefix.shared(2, 2)
    with pytest.raises(ValueError, match=r"at most 2 frames \(horizon\), not 3"):
        backbone.step(*repeated(x, 2), cache)
    backbone.step(*part(x, 0, 1), prefix, 1)
    with pytest.raises(ValueError, match="went from frame 3 to 4 under open suffixes"):
        backbone.step(*repeated(part(x, 0, 1), 2), cache)
