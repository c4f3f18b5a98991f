"""Keys and values of earlier frames, so that a rollout computes each frame once.

Shape legend: B batch, n samples, N tokens a frame, H query heads, G key-value heads, T new frames, S slots, d head dim.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.shortcut.attention import Attended, attend, band_mask, merged, time_attention
from wm.shortcut.backbone import BlockCausalTransformer


@lru_cache(maxsize=16)
def visible_slots(
    clock: int, num_slots: int, start: int, num_frames: int, window: int, device: torch.device
) -> Bool[Tensor, "T S"] | None:
    """Which filled slots of a ring the frames start, ..., start + num_frames - 1 see; None where they see all.

    Args:
        clock: frames ever written; position p lies in slot p mod num_slots.
    """
    held = min(clock, num_slots)
    if start + num_frames - (clock - held) <= window:
        return None
    slot = torch.arange(held, device=device)
    position = clock - 1 - (clock - 1 - slot) % num_slots
    frame = torch.arange(start, start + num_frames, device=device)
    return frame[:, None] - position < window


class _Buffers:
    """Keys and values of each time layer, (B, N, G, frames, d)."""

    def __init__(self, like: BlockCausalTransformer, batch: int, frames: int, dtype: torch.dtype, device: torch.device):
        config = like.config
        shape = (batch, like.num_tokens, config.kv_heads, frames, config.head_dim)
        self.keys, self.values = (
            [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_time_layers)] for _ in range(2)
        )

    @property
    def num_bytes(self) -> int:
        return sum(x.untyped_storage().nbytes() for x in (*self.keys, *self.values))


class RingCache:
    """The last `window - 1` frames of each of `batch` clips, in a ring of preallocated slots.

    A new frame then sees `window` frames, its own included: what a backbone with that window computes over the whole clip. Keys
    are kept turned by their time on a clock that never resets, so that nothing moves when a slot is written again.

    Args:
        window: frames, >= 2; at most the backbone's own, if it has one.
        dtype: of keys and values; what the backbone computes them in (bfloat16 under such an autocast).

    Raises:
        ValueError: for another window.
    """

    def __init__(
        self, backbone: BlockCausalTransformer, batch: int, window: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        if window < 2 or window > (backbone.config.window or window):
            raise ValueError(f"window must be 2..{backbone.config.window or 'any'}, the backbone's own, not {window}")
        self.backbone = backbone
        self.window = window
        self.num_slots = window - 1
        self.soft_cap = backbone.config.soft_cap
        self.clock = 0
        self._buffers = _Buffers(backbone, batch, self.num_slots, dtype, device)

    @property
    def num_bytes(self) -> int:
        """Of all keys and values."""
        return self._buffers.num_bytes

    def extend(
        self,
        layer: int,
        q: Float[Tensor, "B N H T d"],
        k: Float[Tensor, "B N G T d"],
        v: Float[Tensor, "B N G T d"],
        num_committed: int,
    ) -> Float[Tensor, "B N H T d"]:
        """As FrameCache."""
        frames = q.shape[-2]
        if self.clock:
            recent = attend(q, k, v, band_mask(frames, self.window, q.device), self.soft_cap)
            out = merged(self.attend(layer, q, self.clock), recent)
        else:
            out = time_attention(q, k, v, self.window, self.soft_cap)
        self._write(layer, k[..., :num_committed, :], v[..., :num_committed, :])
        return out

    def attend(self, layer: int, q: Float[Tensor, "B N H T d"], start: int) -> Attended:
        """Attention to the frames held, of frames from position `start` on; there must be some."""
        held = min(self.clock, self.num_slots)
        visible = visible_slots(self.clock, self.num_slots, start, q.shape[-2], self.window, q.device)
        keys, values = (x[layer][..., :held, :] for x in (self._buffers.keys, self._buffers.values))
        return attend(q, keys, values, visible, self.soft_cap)

    def advance(self, num_frames: int) -> None:
        """As FrameCache."""
        self.clock += num_frames

    def shared(self, num_samples: int, horizon: int) -> SharedCache:
        """The frames held as one prefix of `num_samples` continuations of each clip, of up to `horizon` frames."""
        return SharedCache(self, num_samples, horizon)

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """The last of these frames that fit, from the clock on."""
        frames = k.shape[-2]
        kept = min(frames, self.num_slots)
        first = self.clock + frames - kept
        slots = torch.arange(first, first + kept, device=k.device) % self.num_slots
        self._buffers.keys[layer][..., slots, :] = k[..., frames - kept :, :]
        self._buffers.values[layer][..., slots, :] = v[..., frames - kept :, :]


class SharedCache:
    """Continuations of clips whose past is stored once: a suffix per sample behind the ring that they share.

    All samples' queries meet the prefix as one batch, their own suffixes apart, and both are merged by their log-sum-exp. Of B
    clips sample s of clip b is row b n + s. Nothing is written to the ring; while a suffix is open, nobody may (`rewind` after).

    Args:
        prefix: with at least one frame in it.
        horizon: frames of a suffix, those that are not committed included.

    Raises:
        ValueError: if the prefix is empty.
    """

    def __init__(self, prefix: RingCache, num_samples: int, horizon: int) -> None:
        if not prefix.clock:
            raise ValueError("the prefix is empty: commit frames to the ring first")
        self.prefix = prefix
        self.num_samples = num_samples
        self.horizon = horizon
        stored = prefix._buffers.keys[0]
        self._buffers = _Buffers(
            prefix.backbone, len(stored) * num_samples, horizon, dtype=stored.dtype, device=stored.device
        )
        self.rewind()

    @property
    def num_bytes(self) -> int:
        """Of the suffixes; the prefix has its own."""
        return self._buffers.num_bytes

    def rewind(self) -> None:
        """Forgets the suffixes: the next frame follows the prefix as it now is."""
        self.clock = self._start = self.prefix.clock

    def extend(
        self,
        layer: int,
        q: Float[Tensor, "B N H T d"],
        k: Float[Tensor, "B N G T d"],
        v: Float[Tensor, "B N G T d"],
        num_committed: int,
    ) -> Float[Tensor, "B N H T d"]:
        """As FrameCache; `num_committed` is for `advance`, as frames that are not committed are written over by the next.

        Raises:
            ValueError: if a suffix is longer than the horizon, or the prefix has moved on under it.
        """
        length = self.clock - self._start
        end = length + q.shape[-2]
        if end > self.horizon:
            raise ValueError(f"a suffix has at most {self.horizon} frames (horizon), not {end}")
        if self.prefix.clock != self._start:
            raise ValueError(
                f"the prefix went from frame {self._start} to {self.prefix.clock} under open suffixes: rewind"
            )
        keys, values = self._buffers.keys[layer], self._buffers.values[layer]
        keys[..., length:end, :], values[..., length:end, :] = k, v
        visible = band_mask(end, self.prefix.window, q.device)[length:]
        suffix = attend(q, keys[..., :end, :], values[..., :end, :], visible, self.prefix.soft_cap)
        return merged(self._attend_prefix(layer, q), suffix)

    def advance(self, num_frames: int) -> None:
        """As FrameCache."""
        self.clock += num_frames

    def _attend_prefix(self, layer: int, q: Float[Tensor, "B N H T d"]) -> Attended:
        """Samples are but more heads to a group's keys: (b n) N H T d -> b N (H n) T d and back."""
        heads = q.shape[2]
        joined = q.unflatten(0, (-1, self.num_samples)).movedim(1, 3).flatten(2, 3)
        of_all = self.prefix.attend(layer, joined, self.clock)
        out, log_sum = (x.unflatten(2, (heads, self.num_samples)).movedim(3, 1).flatten(0, 1) for x in of_all)
        return Attended(out, log_sum)
