"""Colour jitter and random crops: one draw for all frames of a clip."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from wm.config.augment import AugmentConfig

_GREY = np.array([[0.2989, 0.587, 0.114]], np.float32)
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
    brightness, contrast, saturation, hue, crop = within
    return Draw(brightness, contrast, saturation, hue, crop, float(spots[5]), float(spots[6]))


def augmented(frames: np.ndarray, drawn: Draw) -> np.ndarray:
    """The frames of one clip, changed alike: uint8 (T, H, W, 3) to the same shape.

    Colours first, in [0, 1] and cut off there after each change, then the window, bilinear; rounded once. The changes are those of
    torchvision's `adjust_*`, in a fifth of their time.
    """
    count, height, width, _ = frames.shape
    rows, columns = max(1, round(drawn.crop * height)), max(1, round(drawn.crop * width))
    top, left = int(drawn.down * (height - rows + 1)), int(drawn.right * (width - columns + 1))
    pictures = np.multiply(frames, np.float32(1 / 255), dtype=np.float32).reshape(count * height, width, 3)
    if drawn.brightness != 1:
        pictures = _cut(pictures * np.float32(drawn.brightness))
    if drawn.contrast != 1:
        means = _grey(pictures).reshape(count, -1).mean(axis=1).repeat(height)[:, None, None]
        pictures = _cut(pictures * np.float32(drawn.contrast) + np.float32(1 - drawn.contrast) * means)
    if drawn.saturation != 1:
        grey = _grey(pictures)[..., None]
        pictures = _cut(pictures * np.float32(drawn.saturation) + np.float32(1 - drawn.saturation) * grey)
    if drawn.hue != 0:
        colours = cv2.cvtColor(pictures, cv2.COLOR_RGB2HSV)
        colours[..., 0] = (colours[..., 0] + np.float32(360 * drawn.hue)) % 360
        pictures = _cut(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB))
    pictures = pictures.reshape(count, height, width, 3)
    if (rows, columns) != (height, width):
        windows = pictures[:, top : top + rows, left : left + columns]
        pictures = np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in windows])
    return np.rint(pictures * 255).astype(np.uint8)


def _grey(pictures: np.ndarray) -> np.ndarray:
    return cv2.transform(pictures, _GREY)


def _cut(pictures: np.ndarray) -> np.ndarray:
    return np.clip(pictures, 0, 1, out=pictures)
