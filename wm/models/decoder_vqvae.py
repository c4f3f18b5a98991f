"""The VQ-VAE decoder: patch latents to pictures of 16 pixels a patch.

Shape legend: B batch, T frames, P = s x s patches, V visual channels, S = 16 s pixels.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from wm.config.decoder import VqVaeDecoderConfig
from wm.config.errors import UserError
from wm.models.quantizer import Codebook

_PIXELS_PER_PATCH = 16  # two upsamplers, four times each


class ResidualBlock(nn.Module):
    """x + conv1x1(ReLU(conv3x3(ReLU(x)))); the skip carries x itself, before the ReLU."""

    def __init__(self, channel: int, inner: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channel, inner, 3, padding=1), nn.ReLU(), nn.Conv2d(inner, channel, 1)
        )

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return self.conv(x) + x


class Upsampler(nn.Module):
    """A convolution, residual blocks, and two transposed convolutions that double the sides each."""

    def __init__(self, in_channel: int, out_channel: int, config: VqVaeDecoderConfig) -> None:
        super().__init__()
        channel = config.channel
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channel, channel, 3, padding=1),
            *(ResidualBlock(channel, config.block_channels) for _ in range(config.num_blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(channel, channel // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channel // 2, out_channel, 4, stride=2, padding=1),
        )

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D H4 W4"]:
        return self.blocks(x)


class VqVaeDecoder(nn.Module):
    """Two upsamplers in series, V -> V -> 3 channels, after an optional rounding of every patch to a codebook.

    Parameter names are the reference's, so that its weights load; with `quantize` off there is no `quantize_b`, which the
    reference keeps unused.

    Args:
        visual_dim: V.
        tokens_per_frame: P, a square number.

    Raises:
        UserError: P is no square.

    Source: DINO-WM, arXiv 2411.04983, section 3.3, after VQ-VAE (1711.00937); facts: tests/golden/dino_wm.
    """

    def __init__(self, config: VqVaeDecoderConfig, visual_dim: int, tokens_per_frame: int) -> None:
        super().__init__()
        self.side = math.isqrt(tokens_per_frame)
        if self.side**2 != tokens_per_frame:
            raise UserError(f"model.decoder.kind: vqvae needs a square grid of patches, not {tokens_per_frame} tokens")
        self.image_size = _PIXELS_PER_PATCH * self.side
        self.quantize_b = Codebook(visual_dim, config.num_codes) if config.quantize else None
        self.upsample_b = Upsampler(visual_dim, visual_dim, config)
        self.dec = Upsampler(visual_dim, 3, config)

    def forward(self, visual: Float[Tensor, "B T P V"]) -> tuple[Float[Tensor, "B T 3 S S"], Float[Tensor, ""]]:
        """(pictures in about [-1, 1], mean squared distance of the latents to their codes: 0 without a codebook)."""
        distance = visual.new_zeros(())
        if self.quantize_b is not None:
            visual, distance = self.quantize_b(visual)
        maps = visual.flatten(0, 1).unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        return self.dec(self.upsample_b(maps)).unflatten(0, visual.shape[:2]), distance
