"""Colour jitter and random crops: one draw for all frames of a clip.

torchvision is imported late; where torch has no CUDA, `wm.encoders.torchvision_shim.install()` comes first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from wm.config.augment import AugmentConfig

_STREAM = 0xA06  # no other generator of a run has this in its key


class Draw(NamedTuple):
    """What is done to one clip, in this order.

    Args:
        brightness, contrast, saturation: factors.
        hue: turns.
        crop: side of the window as a share of the frame's.
        down, right: where the window lies, in [0, 1): 0 is the top, the left.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    crop: float
    down: float
    right: float


def draw(config: AugmentConfig, seed: int, step: int, position: int) -> Draw:
    """The one of a clip: a pure function of the run's seed, the global step and the clip's place in the global batch.

    What one range is changes no draw of another.
    """
    spots = np.random.default_rng([seed, _STREAM, step, position]).random(len(Draw._fields))
    ranges = (config.brightness, config.contrast, config.saturation, config.hue, config.crop)
    within = [low + float(spot) * (high - low) for (low, high), spot in zip(ranges, spots[:5], strict=True)]
    return Draw(*within, float(spots[5]), float(spots[6]))


def augmented(frames: np.ndarray, drawn: Draw) -> np.ndarray:
    """The frames of one clip, changed alike: uint8 (T, H, W, 3) to the same shape.

    Colours first, in [0, 1] and cut off there after each change, then the window, bilinear; rounded once.
    """
    from torchvision.transforms.v2 import functional

    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    for change, amount, none in (
        (functional.adjust_brightness, drawn.brightness, 1.0),
        (functional.adjust_contrast, drawn.contrast, 1.0),
        (functional.adjust_saturation, drawn.saturation, 1.0),
        (functional.adjust_hue, drawn.hue, 0.0),
    ):
        if amount != none:
            pictures = change(pictures, amount)
    height, width = frames.shape[1:3]
    rows, columns = max(1, round(drawn.crop * height)), max(1, round(drawn.crop * width))
    if (rows, columns) != (height, width):
        top, left = int(drawn.down * (height - rows + 1)), int(drawn.right * (width - columns + 1))
        pictures = functional.resized_crop(pictures, top, left, rows, columns, [height, width])
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
