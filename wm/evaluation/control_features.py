"""What an encoder must beat: the same network untrained, pixels, and random projections of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wm.contracts import Encoder
from wm.encoders.preprocess import preprocess
from wm.evaluation.encoder_probes import Tokens, tokens_of


def control_tokens(untrained: Encoder, image_size: int, seed: int = 0) -> dict[str, Tokens]:
    """`untrained`, `pixels` and `patches`, with as many values a picture as the untrained encoder's P tokens of D.

    Args:
        untrained: the judged encoder's architecture with random weights, such as `wm.encoders.vit.tiny_encoder`.
        image_size: side of the network's input, a multiple of its grid.

    Raises:
        ValueError: the grid is no square that divides `image_size`.
    """
    down, across = untrained.grid
    if down != across or image_size % down:
        raise ValueError(f"a grid of {down} x {across} tokens does not divide {image_size} x {image_size} pixels")
    return {
        "untrained": tokens_of(untrained),
        "pixels": pixels(down * across * untrained.dim),
        "patches": random_patches(image_size, image_size // down, untrained.dim, seed),
    }


def pixels(num_values: int) -> Tokens:
    """The picture made small, antialiased: s x s pixels as tokens of 3, in [-1, 1], with 3 s^2 nearest to `num_values`."""
    side = max(1, round(math.sqrt(num_values / 3)))
    return lambda frames: preprocess(frames, side, side).flatten(2).transpose(1, 2)


def random_patches(image_size: int, patch_size: int, dim: int, seed: int = 0) -> Tokens:
    """Each patch (in [-1, 1], row by row) times one matrix of N(0, 1 / size) drawn from the seed; nothing of its place."""
    size = 3 * patch_size**2
    matrix = torch.randn(size, dim, generator=torch.Generator().manual_seed(seed)) / math.sqrt(size)

    def tokens(frames: Tensor) -> Tensor:
        images = preprocess(frames, image_size, image_size)
        patches = torch.nn.functional.unfold(images, patch_size, stride=patch_size)  # (n, size, P)
        return patches.transpose(1, 2) @ matrix.to(images.device)

    return tokens
