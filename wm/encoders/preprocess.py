"""Pixels to the encoder's input, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialias, (N, 3, H, W) -> (N, 3, height, width); unchanged when the size already fits."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True, align_corners=False)


def preprocess(frames: Tensor, image_size: int, encode_size: int) -> Tensor:
    """DINO-WM's transform: shorter side to image_size, centre crop, [-1, 1], then resized to encode_size.

    Args:
        frames: uint8 (N, H, W, 3), RGB.

    Returns:
        float32 (N, 3, encode_size, encode_size).

    Source: gaoyuezhou/dino_wm, datasets/img_transforms.py and models/visual_world_model.py (facts: tests/golden/dino_wm).
    """
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames must be uint8, got {frames.dtype}")
    images = frames.permute(0, 3, 1, 2).float() / 255
    height, width = images.shape[-2:]
    scale = image_size / min(height, width)
    images = resize(
        images, *(image_size if side == min(height, width) else int(side * scale) for side in (height, width))
    )
    top, left = (round((side - image_size) / 2) for side in images.shape[-2:])
    images = images[..., top : top + image_size, left : left + image_size]
    return resize((images - 0.5) / 0.5, encode_size, encode_size)
