"""The simulated worlds: what may be asked of each. Facts of the originals: WORLDS.md; their numbers: tests/golden/worlds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wm.config.base import Config, NonNegativeInt, PositiveInt


class _World(Config):
    """Args:
    frame_size: side of the pictures.
    shift: a named change of what is seen or of the body, for robustness tables; each world lists its own.
    """

    frame_size: PositiveInt = 224


class WallWorldConfig(_World):
    """The point, the wall and the door of DINO-WM.

    `layout: fixed` is wall 32, door 30; `random` draws wall in 20..44 and door in 10..54 for every episode.
    """

    kind: Literal["wall"] = "wall"
    layout: Literal["fixed", "random"] = "fixed"


class LinearWorldConfig(_World):
    """s' = A s + B a with a seeded, stable A: the world whose best plan is known."""

    kind: Literal["linear"] = "linear"
    frame_size: PositiveInt = 84
    seed: NonNegativeInt = 0


WorldConfig = Annotated[WallWorldConfig | LinearWorldConfig, Field(discriminator="kind")]
