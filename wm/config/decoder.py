"""Image decoders: how a latent becomes a picture. They watch a world model and never teach it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeFloat, NonNegativeInt, PositiveInt


class NoPerceptual(Config):
    """Squared error of pixels alone; LPIPS is reported as not available."""

    kind: Literal["none"] = "none"


class LpipsConfig(Config):
    """LPIPS: distance of a frozen network's features, weighed by heads that the lpips package ships.

    Args:
        backbone: a file with the ImageNet weights of `network` as torchvision saves them (.pth or .safetensors); no random
            network ever stands in for it.
        weight: beside the squared error of pixels, where it is a loss.
    """

    kind: Literal["lpips"] = "lpips"
    backbone: Annotated[str, Field(min_length=1)]
    network: Literal["vgg", "alex", "squeeze"] = "vgg"
    weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _backbone_is_absolute(self) -> Self:
        if not Path(self.backbone).expanduser().is_absolute():
            raise ValueError(f"backbone must be an absolute path: workers run elsewhere (got '{self.backbone}')")
        return self


PerceptualConfig = Annotated[NoPerceptual | LpipsConfig, Field(discriminator="kind")]


class NoDecoder(Config):
    """No picture is decoded, and training reads no pixels where tokens are stored."""

    kind: Literal["none"] = "none"


class VqVaeDecoderConfig(Config):
    """The VQ-VAE decoder: 10,140,163 parameters with the defaults at 384 visual channels; 16 pixels a patch.

    Args:
        channel, num_blocks, block_channels: width, residual blocks and their inner width, of each of the two upsamplers.
        quantize: round latents to a learned codebook first; the reference trains with it off.
        num_codes: of that codebook.
        commitment: weight of the distance to the codes.
    """

    kind: Literal["vqvae"] = "vqvae"
    channel: PositiveInt = 384
    num_blocks: NonNegativeInt = 4
    block_channels: PositiveInt = 128
    quantize: bool = False
    num_codes: PositiveInt = 2048
    commitment: NonNegativeFloat = 0.25
    perceptual: PerceptualConfig = NoPerceptual()


class TransposedConvDecoderConfig(Config):
    """Transposed convolutions from one vector a frame (all its tokens, side by side).

    Args:
        depth: channels of the last hidden layer; the first has 8 times as many, the vector 32 times.
        image_size: side of the decoded picture, px.
    """

    kind: Literal["transposed_conv"] = "transposed_conv"
    depth: PositiveInt = 32
    kernel_size: PositiveInt = 5
    stride: PositiveInt = 3
    image_size: PositiveInt = 224
    perceptual: PerceptualConfig = NoPerceptual()


DecoderConfig = Annotated[NoDecoder | VqVaeDecoderConfig | TransposedConvDecoderConfig, Field(discriminator="kind")]
