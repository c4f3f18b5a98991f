"""Pictures of Push-T, as functions of a state: pixel for pixel the original's, or with one thing about them changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from wm.config.worlds import PushTShape
from wm.envs.pusht_shapes import BLOCKS
from wm.envs.pusht_simulator import AGENT_RADIUS, Bodies, PushTSimulator  # before pygame, which it imports silently

import pygame  # isort: skip
from gym_pusht.envs.pymunk_override import DrawOptions  # isort: skip

Shift = Literal["none", "light", "colours", "background", "agent_size"]
Colour = tuple[int, int, int]

CANVAS = 512  # the world's plane, one pixel a unit
TARGET_POSE = np.array([256.0, 256.0, np.pi / 4])  # of the green place
NOT_DRAWN = 4.0 * CANVAS  # pygame is slow far out: what lies beyond is drawn here, out of the picture too


class Look(NamedTuple):
    """Colours, RGB. The block's fill and the pusher's inner disc are 1.2 times as bright."""

    background: Colour = (255, 255, 255)
    target: Colour = (144, 238, 144)
    block: Colour = (119, 136, 153)
    agent: Colour = (65, 105, 225)
    wall: Colour = (211, 211, 211)


PLAIN, RECOLOURED = Look(), Look(target=(238, 180, 120), block=(150, 75, 60), agent=(40, 140, 70))
CHECKERS: tuple[Colour, Colour] = ((222, 205, 178), (196, 172, 138))  # squares of the shifted background
CHECKER_SIZE = 32
LIGHT_LEFT, LIGHT_RIGHT = 1.0, 0.45  # brightness at the picture's edges under `light`


def agent_radius(shift: Shift) -> float:
    """The pusher's, pixels: half as large again under `agent_size`."""
    return AGENT_RADIUS * (1.5 if shift == "agent_size" else 1.0)


class PushTRenderer:
    """Draws states.

    Args:
        size: of the pictures; the plane of 512 pixels is resized bilinearly, without antialiasing, as in the original.
        with_target: whether the green place is drawn.
        shift: what is different from the original.
    """

    def __init__(self, size: int, with_target: bool = True, shift: Shift = "none") -> None:
        self._size, self._with_target = size, with_target
        self._shift: Shift = shift
        self._simulators: dict[PushTShape, PushTSimulator] = {}

    def frame(self, state: Float[np.ndarray, " s"], shape: PushTShape) -> UInt8[np.ndarray, "size size 3"]:
        """One picture, RGB.

        Like the original's, it shows a short red line at every point of contact: the bodies are put at rest where the
        state has them, and one substep, which then moves nothing, finds the contacts.

        Args:
            state: agent x, y, block x, y, angle, and whatever follows.
        """
        if shape not in self._simulators:
            self._simulators[shape] = PushTSimulator(BLOCKS[shape], agent_radius(self._shift))
        simulator = self._simulators[shape]
        simulator.place(Bodies(*np.clip(state[:4], -NOT_DRAWN, NOT_DRAWN).tolist(), angle=float(state[4])))
        simulator.settle()
        look = RECOLOURED if self._shift == "colours" else PLAIN
        for shapes, colour in (
            (simulator.block.shapes, look.block),
            (simulator.agent.shapes, look.agent),
            (simulator.space.static_body.shapes, look.wall),
        ):
            for one in shapes:
                one.color = (*colour, 255)
        surface = _canvas(shape, self._with_target, look, self._shift == "background").copy()
        simulator.space.debug_draw(DrawOptions(surface))
        picture = _resized(surface, self._size)
        return _lit(picture) if self._shift == "light" else picture


@lru_cache(maxsize=32)
def _canvas(shape: PushTShape, with_target: bool, look: Look, checkers: bool) -> pygame.Surface:
    """What lies under block and pusher."""
    surface = pygame.Surface((CANVAS, CANVAS), depth=32)
    surface.fill(look.background)
    if checkers:
        cells = np.add.outer(*2 * [np.arange(CANVAS) // CHECKER_SIZE]) % 2
        pygame.surfarray.pixels3d(surface)[:] = np.array(CHECKERS)[cells]
    if with_target:
        for corners in BLOCKS[shape].corners_at(TARGET_POSE):
            points = [(round(x), round(y)) for x, y in corners.tolist()]
            pygame.draw.polygon(surface, look.target, [*points, points[0]])
    return surface


def _resized(surface: pygame.Surface, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The bytes of 32-bit pixels lie in the order of blue, green, red, nothing; sorting them last costs least."""
    pixels = np.asarray(surface.get_view("2")).T.view(np.uint8).reshape(CANVAS, CANVAS, 4)
    return np.ascontiguousarray(cv2.resize(pixels, (size, size))[..., 2::-1])


def _lit(picture: UInt8[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "size size 3"]:
    """As under a lamp at the left."""
    brightness = np.linspace(LIGHT_LEFT, LIGHT_RIGHT, picture.shape[1])
    return np.rint(picture * brightness[None, :, None]).astype(np.uint8)
