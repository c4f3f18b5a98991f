"""Frozen vision encoders."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeInt, PositiveInt


class TinyEncoderConfig(Config):
    """The DINOv2 architecture, small, with seeded random weights: runs anywhere, downloads nothing."""

    kind: Literal["tiny"] = "tiny"
    image_size: PositiveInt = 84
    patch_size: PositiveInt = 14
    hidden_size: PositiveInt = 64
    depth: PositiveInt = 2
    heads: PositiveInt = 4
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size})")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of heads ({self.heads})")
        return self


class Dinov2EncoderConfig(Config):
    """DINOv2 through transformers.

    Args:
        weights: a hub id or a local folder with config.json and weights.
        image_size: frames are resized and centre-cropped to this, as the reference does.
        encode_size: then resized to this before the network; 196 gives 14 x 14 patches.
    """

    kind: Literal["dinov2"] = "dinov2"
    weights: str = "facebook/dinov2-small"
    image_size: PositiveInt = 224
    encode_size: PositiveInt = 196


EncoderConfig = Annotated[Dinov2EncoderConfig | TinyEncoderConfig, Field(discriminator="kind")]
