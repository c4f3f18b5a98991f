"""The Wall world's picture: white plane, black wall and border lines, a red dot.

Drawn exactly as the original does at 65 x 65, then resized to the size asked for.

Source: github.com/gaoyuezhou/dino_wm 0a9492f, re-implemented from a description of its behaviour.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int, Shaped, UInt8

from wm.envs.wall_rule import BORDER_HIGH, BORDER_LOW, DOOR_HALF_HEIGHT, IMAGE_SIZE, WALL_HALF_THICKNESS

DOT_STD = 1.7  # pixels
WHITE = 255.0
GREEN_AND_BLUE = slice(1, 3)
DOT_WINDOW = 13  # pixels; floor(255 g) is 0 beyond 5.8 pixels of the dot

_PIXELS = np.arange(IMAGE_SIZE, dtype=np.float64)


def render_batch(
    states: Float[np.ndarray, "n 2"], wall_x: float, door_y: float, size: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """Frames of one layout, RGB, rounded to whole numbers.

    The resize is linear, so a frame is the resized background (computed once) less the resized tint of the dot,
    which is zero but for a small window. Before rounding these are the numbers of `render_float` up to 1e-4, some
    ten times faster.

    Args:
        states: dot positions (x, y), pixels of the 65 x 65 plane, inside the picture.
        wall_x, door_y: the layout, pixels.
        size: height and width of the frames.
    """
    background = _resized_background(wall_x, door_y, size).numpy()
    frames = np.empty((len(states), size, size, 3), dtype=np.uint8)
    frames[:] = _background_frame(wall_x, door_y, size)

    first_column = _window_start(states[:, 0])
    first_row = _window_start(states[:, 1])
    rows = first_row[:, None] + np.arange(DOT_WINDOW)
    columns = first_column[:, None] + np.arange(DOT_WINDOW)
    tint = _tint(states, rows, columns)
    tint[is_black(wall_x, door_y)[rows[:, :, None], columns[:, None, :]]] = 0

    top, down = (table[first_row] for table in _window_weights(size))
    left, across = (table[first_column] for table in _window_weights(size))
    change = down @ tint.astype(np.float32) @ across.transpose(0, 2, 1)
    extent = change.shape[1]
    for frame, row, column, less in zip(frames, top, left, change, strict=True):
        window = (slice(row, row + extent), slice(column, column + extent))
        # Red is not tinted; green and blue are equal.
        frame[window][..., GREEN_AND_BLUE] = np.rint(background[window] - less)[..., None]
    return frames


def render_float(
    states: Float[np.ndarray, "n 2"], wall_x: float, door_y: float, size: int
) -> Float32[np.ndarray, "n h w 3"]:
    """The same frames before rounding, 0..255: what the original hands to its planner at size 224."""
    green = _resize(torch.from_numpy(_green_65(states, wall_x, door_y)), size).numpy()
    red = np.broadcast_to(_resized_background(wall_x, door_y, size).numpy(), green.shape)
    return np.stack([red, green, green], axis=-1)


def render_65(states: Float[np.ndarray, "n 2"], wall_x: float, door_y: float) -> UInt8[np.ndarray, "n 65 65 3"]:
    """Frames as the original draws them, before any resize."""
    green = _green_65(states, wall_x, door_y)
    red = np.broadcast_to(_background_65(wall_x, door_y), green.shape)
    return np.stack([red, green, green], axis=-1).astype(np.uint8)


def _green_65(states: Float[np.ndarray, "n 2"], wall_x: float, door_y: float) -> Float32[np.ndarray, "n 65 65"]:
    """Green, and blue: white less the tint, black on the wall."""
    everywhere = np.broadcast_to(_PIXELS, (len(states), IMAGE_SIZE))
    tint = _tint(states, everywhere, everywhere)
    tint[:, is_black(wall_x, door_y)] = WHITE
    return (WHITE - tint).astype(np.float32)


def _tint(
    states: Float[np.ndarray, "n 2"], rows: Shaped[np.ndarray, "n r"], columns: Shaped[np.ndarray, "n c"]
) -> Float[np.ndarray, "n r c"]:
    """floor(255 g) at some pixels, g = exp(-d^2 / (2 std^2)) scaled so that the picture's nearest pixel has 1.

    g is a product of a part in x and a part in y, and so is its maximum.
    """
    across, down = _profile(states[:, 0], columns), _profile(states[:, 1], rows)
    return np.floor(WHITE * (down[:, :, None] * across[:, None, :]))


def _profile(positions: Float[np.ndarray, " n"], pixels: Shaped[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
    positions = np.asarray(positions, dtype=np.float64)
    nearest = np.abs(positions - np.rint(positions))
    return np.exp((nearest[:, None] ** 2 - (pixels - positions[:, None]) ** 2) / (2 * DOT_STD**2))


def _window_start(positions: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """First of the `DOT_WINDOW` pixels along one axis that the dot can tint."""
    centred = np.rint(positions).astype(np.int64) - DOT_WINDOW // 2
    return np.clip(centred, 0, IMAGE_SIZE - DOT_WINDOW)


@lru_cache(maxsize=8)
def _window_weights(size: int) -> tuple[Int[np.ndarray, " starts"], Float32[np.ndarray, "starts extent window"]]:
    """For every start of a window: the first output pixel it reaches, and its pixels' weights from there on."""
    identity = torch.eye(IMAGE_SIZE)[None, None]
    weights = F.interpolate(identity, size=(size, IMAGE_SIZE), mode="bilinear", antialias=True)[0, 0].numpy()
    windows = [weights[:, start : start + DOT_WINDOW] for start in range(IMAGE_SIZE - DOT_WINDOW + 1)]
    reached = [np.flatnonzero(window.any(axis=1)) for window in windows]
    extent = max(outputs[-1] - outputs[0] + 1 for outputs in reached)
    first = np.array([min(outputs[0], size - extent) for outputs in reached])
    return first, np.stack([window[start : start + extent] for window, start in zip(windows, first, strict=True)])


@lru_cache(maxsize=64)
def is_black(wall_x: float, door_y: float) -> Bool[np.ndarray, "65 65"]:
    """Where wall and border are, read-only."""
    row, column = _PIXELS[:, None], _PIXELS[None, :]
    wall = (abs(column - wall_x) <= WALL_HALF_THICKNESS) & (abs(row - door_y) > DOOR_HALF_HEIGHT)
    border = np.isin(row, (BORDER_LOW, BORDER_HIGH)) | np.isin(column, (BORDER_LOW, BORDER_HIGH))
    black = wall | border
    black.setflags(write=False)
    return black


def _background_65(wall_x: float, door_y: float) -> Float32[np.ndarray, "65 65"]:
    return np.where(is_black(wall_x, door_y), 0.0, WHITE).astype(np.float32)


@lru_cache(maxsize=64)
def _resized_background(wall_x: float, door_y: float, size: int) -> Float32[torch.Tensor, "h w"]:
    return _resize(torch.from_numpy(_background_65(wall_x, door_y))[None], size)[0]


@lru_cache(maxsize=64)
def _background_frame(wall_x: float, door_y: float, size: int) -> UInt8[np.ndarray, "h w 3"]:
    rounded = np.rint(_resized_background(wall_x, door_y, size).numpy()).astype(np.uint8)
    return np.repeat(rounded[..., None], 3, axis=-1)


def _resize(images: Float32[torch.Tensor, "n 65 65"], size: int) -> Float32[torch.Tensor, "n h w"]:
    return F.interpolate(images[:, None], size=(size, size), mode="bilinear", align_corners=False, antialias=True)[:, 0]
