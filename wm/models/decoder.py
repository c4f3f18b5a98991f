"""Image decoders on detached latents: they show what a latent holds and never shape it.

Shape legend: B batch, T frames, P patches, V visual channels, S side of the decoded picture.
"""

from __future__ import annotations

from typing import assert_never

from jaxtyping import Float, UInt8
from torch import Tensor

from wm.config.decoder import (
    DecoderConfig,
    LpipsConfig,
    NoDecoder,
    TransposedConvDecoderConfig,
    VqVaeDecoderConfig,
)
from wm.encoders.preprocess import preprocess
from wm.losses.image import image_loss
from wm.losses.ranks import ALONE, Alone, weighted_mean
from wm.models.decoder_transposed_conv import TransposedConvDecoder
from wm.models.decoder_vqvae import VqVaeDecoder
from wm.models.perceptual import PerceptualDistance

ImageDecoder = VqVaeDecoder | TransposedConvDecoder


def build_decoder(config: DecoderConfig, visual_dim: int, tokens_per_frame: int) -> ImageDecoder | None:
    """The decoder of a model whose latents have P tokens of V visual channels; None for `none`."""
    match config:
        case NoDecoder():
            return None
        case VqVaeDecoderConfig():
            return VqVaeDecoder(config, visual_dim, tokens_per_frame)
        case TransposedConvDecoderConfig():
            return TransposedConvDecoder(config, visual_dim, tokens_per_frame)
        case _:
            assert_never(config)


def target_images(frames: UInt8[Tensor, "B T H W 3"], side: int) -> Float[Tensor, "B T 3 S S"]:
    """What a decoder of pictures of `side` pixels should give: the frames resized, cropped as the encoder crops, in [-1, 1]."""
    return preprocess(frames.flatten(0, 1), side, side).unflatten(0, frames.shape[:2])


class DecoderLoss:
    """image MSE + commitment x distance to the codes + LPIPS weight x LPIPS, on detached latents.

    The backbone of LPIPS is read at the first call: a model can be loaded and used where its file is absent.
    """

    def __init__(self, config: VqVaeDecoderConfig | TransposedConvDecoderConfig) -> None:
        self._config = config
        self._perceptual: PerceptualDistance | None = None

    def __call__(
        self,
        decoder: ImageDecoder,
        visual: Float[Tensor, "B T P V"],
        images: Float[Tensor, "B T 3 S S"],
        weights: Float[Tensor, "B"],
        ranks: Alone = ALONE,
    ) -> dict[str, Tensor]:
        """`decoder_loss` and its terms, by name. `visual` is detached here, and only the decoder gets a gradient."""
        decoded, distance = decoder(visual.detach())
        terms = {"decoder_recon_loss": image_loss(decoded, images, weights, ranks), "decoder_vq_loss": distance}
        loss = terms["decoder_recon_loss"]
        if isinstance(self._config, VqVaeDecoderConfig):
            loss = loss + self._config.commitment * distance
        if isinstance(self._config.perceptual, LpipsConfig):
            if self._perceptual is None:
                self._perceptual = PerceptualDistance(self._config.perceptual)
            per_image = self._perceptual(decoded.flatten(0, 1), images.flatten(0, 1))
            per_clip = per_image.unflatten(0, decoded.shape[:2]).mean(dim=1)
            terms["decoder_lpips_loss"] = weighted_mean(per_clip, weights, ranks)
            loss = loss + self._config.perceptual.weight * terms["decoder_lpips_loss"]
        return {"decoder_loss": loss, **terms}
