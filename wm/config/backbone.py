"""The block-causal transformer under shortcut forcing."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeInt, PositiveFloat, PositiveInt


class BackboneConfig(Config):
    """Space layers within a frame, and every few of them a time layer across frames.

    Defaults: 152,402,688 parameters at 196 patches of 768 channels and k_max 64.

    Args:
        width: channels of a token.
        heads: of queries; `kv_heads` of keys and values are shared by groups of them.
        registers: learned tokens of a frame that stand for no patch.
        time_every: each so-manieth layer is a time layer, the others are space layers; 2 alternates.
        mlp_ratio: hidden channels of SwiGLU over width, rounded to a multiple of 8.
        rope_base: the longest wavelength of the positions over time is about 2 pi rope_base frames.
        soft_cap: logits become c tanh(logits / c), written out, without a fused kernel; None: QK-norm bounds them already.
        checkpointing: recompute each layer's activations in the backward pass: less memory, a third more time.
        window: frames that a time layer sees, a frame's own included; None for all.
    """

    width: PositiveInt = 768
    depth: PositiveInt = 24
    heads: PositiveInt = 12
    kv_heads: PositiveInt = 4
    head_dim: PositiveInt = 64
    registers: NonNegativeInt = 8
    time_every: Annotated[int, Field(ge=2)] = 4
    mlp_ratio: PositiveFloat = 8 / 3
    rope_base: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10_000.0
    soft_cap: PositiveFloat | None = None
    checkpointing: bool = False
    window: Annotated[int, Field(ge=2)] | None = None

    @property
    def mlp_dim(self) -> int:
        """Hidden channels of SwiGLU."""
        return 8 * max(1, round(self.mlp_ratio * self.width / 8))

    @property
    def num_time_layers(self) -> int:
        """Layers that keep keys and values of earlier frames."""
        return self.depth // self.time_every

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: positions turn pairs of channels")
        if self.width % 2:
            raise ValueError(f"width ({self.width}) must be even: the shortcut token is two halves")
        return self

    @model_validator(mode="after")
    def _frames_are_connected(self) -> Self:
        if self.depth < self.time_every:
            raise ValueError(
                f"depth ({self.depth}) must be at least time_every ({self.time_every}): no layer sees time"
            )
        return self
