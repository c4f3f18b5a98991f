"""The transposed-convolution decoder: one vector a frame to a picture, as in Dreamer."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wm.config.decoder import TransposedConvDecoderConfig


class TransposedConvDecoder(nn.Module):
    """Linear to 32 x depth channels at 1 x 1, five transposed convolutions (3^5 = 243 px at stride 3), then resized.

    Parameter names are the reference's, so that its weights load. The reference takes one token a frame; here a frame's tokens
    are laid side by side, which for one token is the same.

    Args:
        visual_dim: V.
        tokens_per_frame: P.

    Source: DINO-WM's `TransposedConvDecoder`, after Hafner et al., arXiv 1912.01603; facts: tests/golden/dino_wm.
    """

    def __init__(self, config: TransposedConvDecoderConfig, visual_dim: int, tokens_per_frame: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        first = 32 * config.depth
        widths = [first, 8 * config.depth, 4 * config.depth, 2 * config.depth, config.depth, 3]
        layers: list[nn.Module] = [
            nn.Linear(tokens_per_frame * visual_dim, first),
            nn.Identity(),  # the reference counts one more layer
            nn.Unflatten(1, (first, 1, 1)),
        ]
        for narrow, (into, out) in enumerate(pairwise(widths)):
            layers += [nn.ReLU()] if narrow else []
            layers.append(nn.ConvTranspose2d(into, out, config.kernel_size, config.stride, padding=1))
        self.network = nn.Sequential(*layers)

    def forward(self, visual: Float[Tensor, "B T P V"]) -> tuple[Float[Tensor, "B T 3 S S"], Float[Tensor, ""]]:
        """(pictures in about [-1, 1], 0: there is no codebook)."""
        pictures = self.network(visual.flatten(0, 1).flatten(1))
        size = (self.image_size, self.image_size)
        pictures = F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
        return pictures.unflatten(0, visual.shape[:2]), visual.new_zeros(())
