"""One step of a rollout as a function of tensors alone: what is compiled, captured and exported.

Shape legend: B rows, P patches, C token channels, A F action, N tokens a frame, L time layers, H query heads, G key-value heads,
S = window - 1 slots, T new frames, Q queries, d head dim.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from wm.shortcut.attention import attend, merged
from wm.shortcut.model import BackboneModel
from wm.shortcut.past import CachedPast
from wm.shortcut.step_facts import StepFacts


class StaticStep(nn.Module):
    """The frame after the newest one; on the way the newest one's keys and values, which its caller keeps.

    Every shape is fixed, the clock is a tensor, and nothing is written: all slots are attended to, and a mask made of the clock
    hides those that hold nothing yet. It shares the model's weights and computes what `rollout` computes.

    Args:
        batch: B, rows that advance together.
    """

    def __init__(self, model: BackboneModel, batch: int) -> None:
        super().__init__()
        self.model = model
        self.batch = batch

    @property
    def facts(self) -> StepFacts:
        """What a caller must know to give it tensors."""
        model, config = self.model, self.model.config.backbone
        return StepFacts(
            batch=self.batch,
            num_patches=model.tokens_per_frame,
            token_dim=model.token_dim,
            action_dim=model.action_dim,
            num_time_layers=config.num_time_layers,
            num_tokens=model.backbone.num_tokens,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            window=model.window,
            sampling_steps=model.passes_per_frame,
            noise_seed=model.rollout_noise_seed,
            dtype=str(model.token_mean.dtype).removeprefix("torch."),
            ring_dtype=str(model.backbone.to_latents.weight.dtype).removeprefix("torch."),
        )

    @torch.no_grad()
    def forward(
        self,
        frame: Float[Tensor, "B 1 P C"],
        actions: Float[Tensor, "B 2 A"],
        known: Bool[Tensor, "B 2"],
        noise: Float[Tensor, "1 2 P C"],
        keys: Float[Tensor, "L B N G S d"],
        values: Float[Tensor, "L B N G S d"],
        clock: Int64[Tensor, ""],
    ) -> tuple[Float[Tensor, "B 1 P C"], Float[Tensor, "L B N G 1 d"], Float[Tensor, "L B N G 1 d"]]:
        """(content of the next frame, `frame`'s keys, `frame`'s values); the latter two belong into slot clock mod S.

        Args:
            frame: content of the newest frame, seen or imagined.
            actions: that led to `frame`, and that leads to the next; normalised.
            known: False: nothing is known of that action.
            noise: of `frame` as context, and of the next frame; a teacher-forced model looks at neither.
            keys, values: of the frames before, frame p in slot p mod S; any finite numbers where none has been yet.
            clock: frames before `frame`.
        """
        ring = _Ring(keys, values, clock, self.model.config.backbone.soft_cap)
        tokens = self.model.action_token(actions.flatten(0, 1)[:, None], known.flatten())
        following = self.model.following(
            CachedPast(self.model.backbone, ring),
            self.model.standardised(frame),
            tokens.unflatten(0, known.shape).squeeze(2),
            noise,
        )
        return self.model.content_of(following), *ring.committed


class _Ring:
    """A FrameCache over tensors that it only reads; what is committed stands behind them.

    Args:
        clock: frames ever written to keys and values.
    """

    def __init__(
        self,
        keys: Float[Tensor, "L B N G S d"],
        values: Float[Tensor, "L B N G S d"],
        clock: Int64[Tensor, ""],
        soft_cap: float | None,
    ) -> None:
        self._ring = keys, values
        self._start = clock
        self._soft_cap = soft_cap
        self._num_committed = 0
        self._committed = [(keys[layer][..., :0, :], values[layer][..., :0, :]) for layer in range(len(keys))]

    @property
    def clock(self) -> Int64[Tensor, ""]:
        """Position of the next frame."""
        return self._start + self._num_committed

    @property
    def committed(self) -> tuple[Float[Tensor, "L B N G T d"], Float[Tensor, "L B N G T d"]]:
        """Keys and values of the frames committed here."""
        keys, values = zip(*self._committed, strict=True)
        return torch.stack(keys), torch.stack(values)

    def extend(
        self,
        layer: int,
        q: Float[Tensor, "B N H T d"],
        k: Float[Tensor, "B N G T d"],
        v: Float[Tensor, "B N G T d"],
        num_committed: int,
    ) -> Float[Tensor, "B N H T d"]:
        """As FrameCache."""
        recent_keys, recent_values = (
            torch.cat(pair, dim=-2) for pair in zip(self._committed[layer], (k, v), strict=True)
        )
        keys, values = (stored[layer] for stored in self._ring)
        recent = self._start + torch.arange(recent_keys.shape[-2], device=q.device)
        frames = recent[self._num_committed :]
        slots = torch.arange(keys.shape[-2], device=q.device)
        held = self._start - 1 - (self._start - 1 - slots) % len(slots)
        out = merged(
            attend(q, keys, values, self._visible(frames, held), self._soft_cap),
            attend(q, recent_keys, recent_values, self._visible(frames, recent), self._soft_cap),
        )
        kept = self._num_committed + num_committed
        self._committed[layer] = recent_keys[..., :kept, :], recent_values[..., :kept, :]
        return out

    def advance(self, num_frames: int) -> None:
        """As FrameCache."""
        self._num_committed += num_frames

    def _visible(self, frames: Int64[Tensor, "T"], keys: Int64[Tensor, "Q"]) -> Bool[Tensor, "T Q"]:
        """Which positions of keys each frame sees; those below 0 are slots that hold nothing yet."""
        age = frames[:, None] - keys
        window = self._ring[0].shape[-2] + 1
        return (age >= 0) & (age < window) & (keys >= 0)
