"""The frames before those at hand, as a rollout needs them: kept as keys and values, or computed again under a gradient."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache
from wm.shortcut.layers import FrameCache


@runtime_checkable
class Past(Protocol):
    """Frames that were committed."""

    def step(
        self,
        latents: Float[Tensor, "B T P C"],
        levels: Int[Tensor, "B T"],
        steps: Int[Tensor, "B T"],
        actions: Float[Tensor, "B T W"],
        num_committed: int = 0,
    ) -> Float[Tensor, "B T P C"]:
        """x^ of new frames; the first `num_committed` of them are the past of what follows."""
        ...

    def branched(self, num_samples: int, horizon: int) -> Past:
        """The past of `num_samples` continuations, of up to `horizon` frames, of each clip held."""
        ...


class CachedPast:
    """Each frame is computed once. No gradient.

    Args:
        cache: of the frames committed so far.
    """

    def __init__(self, backbone: BlockCausalTransformer, cache: FrameCache) -> None:
        self._backbone = backbone
        self._cache = cache

    def step(
        self, latents: Tensor, levels: Tensor, steps: Tensor, actions: Tensor, num_committed: int = 0
    ) -> Float[Tensor, "B T P C"]:
        """As Past."""
        return self._backbone.step(latents, levels, steps, actions, self._cache, num_committed)

    def branched(self, num_samples: int, horizon: int) -> CachedPast:
        """As Past, behind one copy of the frames so far."""
        if not isinstance(self._cache, RingCache):
            raise ValueError("continuations have no continuations of their own")
        return CachedPast(self._backbone, self._cache.shared(num_samples, horizon))


class RecomputedPast:
    """Every frame is computed again at every step, so that gradients reach the actions of all.

    Args:
        window: frames that are kept.
    """

    def __init__(self, backbone: BlockCausalTransformer, window: int) -> None:
        self._backbone = backbone
        self._window = window
        self._inputs: tuple[Tensor, ...] | None = None

    def step(
        self, latents: Tensor, levels: Tensor, steps: Tensor, actions: Tensor, num_committed: int = 0
    ) -> Float[Tensor, "B T P C"]:
        """As Past."""
        new = (latents, levels, steps, actions)
        whole = (
            new
            if self._inputs is None
            else tuple(torch.cat(pair, dim=1) for pair in zip(self._inputs, new, strict=True))
        )
        frames = latents.shape[1]
        kept = whole[0].shape[1] - frames + num_committed
        out = self._backbone(*(part[:, -self._window :] for part in whole))[:, -frames:]
        if num_committed:
            self._inputs = tuple(part[:, :kept] for part in whole)
        return out

    def branched(self, num_samples: int, horizon: int) -> RecomputedPast:
        """As Past."""
        branch = RecomputedPast(self._backbone, self._window)
        if self._inputs is not None:
            branch._inputs = tuple(part.repeat_interleave(num_samples, dim=0) for part in self._inputs)
        return branch
