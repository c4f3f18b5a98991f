"""Random changes of the training clips' pictures."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wm.config.base import Config

Range = Annotated[tuple[float, float], Field(strict=False)]
BOUNDS = {
    "brightness": (0.0, 10.0),
    "contrast": (0.0, 10.0),
    "saturation": (0.0, 10.0),
    "hue": (-0.5, 0.5),
    "crop": (0.1, 1.0),
}


class AugmentConfig(Config):
    """One draw a clip, the same for all its frames, uniform in each range; nothing at the defaults.

    Proprio and state stay what they were: a crop moves and scales what is seen, but not where they say that it is. Keep its range
    near 1 where a loss or a probe reads places from the pictures.

    Args:
        brightness: lowest and highest factor of every channel; [1, 1] is none.
        contrast: factor of the distance from the frame's mean grey; [1, 1] is none.
        saturation: factor of the distance from each pixel's grey; [1, 1] is none.
        hue: turns of the colour circle, within [-0.5, 0.5]; [0, 0] is none.
        crop: side of a window as a share of the frame's, within [0.1, 1]; its place is drawn too, and it is scaled back to the
            frame's size. [1, 1] is none.
    """

    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)
    crop: Range = (1.0, 1.0)

    @property
    def is_on(self) -> bool:
        """Whether it changes anything."""
        return self != AugmentConfig()

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name, (least, most) in BOUNDS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name}: [{low:g}, {high:g}] is no range within [{least:g}, {most:g}], lowest first")
        return self
