"""Hiding tokens from the predictor, an ablation.

In training, patches of the predictor's input are hidden behind one learned token. The prediction loss stays on every token; a
denoising term adds the error of those whose place was hidden a frame earlier. Nothing is hidden in evaluation.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wm.config.base import Config
from wm.config.schedule import ConstantSchedule, ScalarSchedule


class NoMasking(Config):
    """The predictor sees every token."""

    kind: Literal["none"] = "none"


class _Masking(Config):
    """What every kind has.

    Args:
        ratio: share of a frame's patches, rounded to whole ones, at least one.
        weight: of the denoising term.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.25
    weight: ScalarSchedule = ConstantSchedule()


class RandomMasking(_Masking):
    """Each frame hides patches of its own."""

    kind: Literal["random"] = "random"


class BlockMasking(_Masking):
    """Each frame hides one square of its patch grid, as near to `ratio` as squares allow."""

    kind: Literal["block"] = "block"


class TubeMasking(_Masking):
    """All frames of a clip hide the same patches."""

    kind: Literal["tube"] = "tube"


class LearnedMasking(_Masking):
    """Each frame hides the patches that a learned score ranks lowest, with Gumbel noise; trained straight-through."""

    kind: Literal["learned"] = "learned"


MaskingConfig = Annotated[
    NoMasking | RandomMasking | BlockMasking | TubeMasking | LearnedMasking, Field(discriminator="kind")
]
