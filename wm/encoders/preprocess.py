"""Pixels to the encoder's input, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    images = _cropped(frames, image_size, image_size)
    return resize((images - 0.5) / 0.5, encode_size, encode_size)


def preprocess_imagenet(frames: Tensor, image_size: int, resize_size: int | None = None) -> Tensor:
    """Shorter side to resize_size (default image_size), centre crop of image_size, (x / 255 - mean) / std of ImageNet.

    Args:
        frames: uint8 (N, H, W, 3), RGB.

    Returns:
        float32 (N, 3, image_size, image_size).

    Source: the processors of transformers (DINOv3ViTImageProcessor, VJEPA2VideoProcessor, ConvNextImageProcessor).
    Differences: a frame that is not square is cropped, where DINOv3's squeezes it; resized values are not rounded back to
    bytes, and ResNet's bicubic is bilinear here.
    """
    images = _cropped(frames, resize_size or image_size, image_size)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def _cropped(frames: Tensor, resize_size: int, crop_size: int) -> Tensor:
    """float32 (N, 3, crop_size, crop_size) in [0, 1]."""
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames must be uint8, got {frames.dtype}")
    images = frames.permute(0, 3, 1, 2).float() / 255
    height, width = images.shape[-2:]
    scale = resize_size / min(height, width)
    images = resize(
        images, *(resize_size if side == min(height, width) else int(side * scale) for side in (height, width))
    )
    top, left = (round((side - crop_size) / 2) for side in images.shape[-2:])
    return images[..., top : top + crop_size, left : left + crop_size]
