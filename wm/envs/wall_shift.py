"""The Wall world seen otherwise: other light, colours, background or dot, for robustness tables. Nothing moves differently.

A shifted picture is drawn in full at 65 x 65, in colour, and resized as the plain one is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8

from wm.envs.wall_render import DOT_STD
from wm.envs.wall_rule import IMAGE_SIZE

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How the plane is painted; colours are RGB, 0..255.

    Args:
        tiles: colour of every second square of 8 x 8 pixels of the plane, or None for a plain one.
        dot_std: size of the dot, pixels; the point that moves is still a point.
        dimmest: brightness at the right edge as a share of that at the left edge, which is 1: a lamp at the left.
    """

    plane: Colour = (255.0, 255.0, 255.0)
    tiles: Colour | None = None
    wall: Colour = (0.0, 0.0, 0.0)
    dot: Colour = (255.0, 0.0, 0.0)
    dot_std: float = DOT_STD
    dimmest: float = 1.0


_PLAIN = Look()
LOOKS: dict[str, Look] = {
    "light": replace(_PLAIN, dimmest=0.35),
    "colours": replace(_PLAIN, plane=(250.0, 240.0, 200.0), wall=(40.0, 60.0, 120.0), dot=(20.0, 140.0, 60.0)),
    "background": replace(_PLAIN, plane=(215.0, 225.0, 235.0), tiles=(170.0, 185.0, 200.0)),
    "agent_size": replace(_PLAIN, dot_std=1.6 * DOT_STD),
}
TILE = 8  # pixels


def render_shifted(
    states: Float[np.ndarray, "n 2"], black: Bool[np.ndarray, "65 65"], size: int, shift: str
) -> UInt8[np.ndarray, "n h w 3"]:
    """Frames of one layout under a shift, RGB.

    Args:
        states: dot positions (x, y), pixels of the 65 x 65 plane.
        black: where wall and border are.
        size: height and width of the frames.
        shift: a name in `LOOKS`.
    """
    look = LOOKS[shift]
    pixels = np.arange(IMAGE_SIZE, dtype=np.float64)
    squared = (pixels - states[..., None]) ** 2  # (n, 2, 65)
    across, down = np.moveaxis(np.exp((squared.min(axis=2, keepdims=True) - squared) / (2 * look.dot_std**2)), 1, 0)
    share = down[:, :, None] * across[:, None, :]
    share[:, black] = 0
    ground, gain = _ground(shift)
    canvas = np.where(black[..., None], np.array(look.wall), ground)
    canvas = canvas + share[..., None] * (np.array(look.dot) - canvas)
    small = torch.from_numpy((canvas * gain).astype(np.float32)).permute(0, 3, 1, 2)
    resized = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


@lru_cache(maxsize=len(LOOKS))
def _ground(shift: str) -> tuple[Float[np.ndarray, "65 65 3"], Float[np.ndarray, "65 1"]]:
    """The plane's colours, and the light along x."""
    look = LOOKS[shift]
    ground = np.broadcast_to(np.array(look.plane), (IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    if look.tiles is not None:
        squares = np.arange(IMAGE_SIZE) // TILE
        ground[(squares[:, None] + squares) % 2 == 1] = look.tiles
    return ground, np.linspace(1.0, look.dimmest, IMAGE_SIZE)[:, None]
