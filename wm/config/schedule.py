"""Scalars that may change over training: `{kind, start, end, over}`, every field an ordinary path."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from wm.config.base import Config, Fraction, NonNegativeFloat


class ConstantSchedule(Config):
    """value = start."""

    kind: Literal["constant"] = "constant"
    start: NonNegativeFloat = 1.0


class LinearSchedule(Config):
    """From start to end in a straight line over the first `over` of training, then end."""

    kind: Literal["linear"] = "linear"
    start: NonNegativeFloat = 1.0
    end: NonNegativeFloat = 1.0
    over: Fraction = 1.0


class CosineSchedule(Config):
    """From start to end along half a cosine over the first `over` of training, then end."""

    kind: Literal["cosine"] = "cosine"
    start: NonNegativeFloat = 1.0
    end: NonNegativeFloat = 0.0
    over: Fraction = 1.0


ScalarSchedule = Annotated[ConstantSchedule | LinearSchedule | CosineSchedule, Field(discriminator="kind")]


def value_at(schedule: ConstantSchedule | LinearSchedule | CosineSchedule, progress: float) -> float:
    """The scheduled value at `progress` in [0, 1] of training.

    linear: start + (end - start) q;  cosine: end + (start - end) (1 + cos(pi q)) / 2;  q = min(progress / over, 1).
    """
    if isinstance(schedule, ConstantSchedule):
        return schedule.start
    done = 1.0 if schedule.over == 0 else min(progress / schedule.over, 1.0)
    if isinstance(schedule, LinearSchedule):
        return schedule.start + (schedule.end - schedule.start) * done
    return schedule.end + (schedule.start - schedule.end) * (1 + math.cos(math.pi * done)) / 2
