"""Scalars that may change over training: `{kind, start, warmup, end, over}`, every field an ordinary path."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat


class _Schedule(Config):
    """From 0 to `start` in a straight line over the first `warmup` of training, then as the kind says."""

    start: NonNegativeFloat = 1.0
    warmup: Fraction = 0.0


class ConstantSchedule(_Schedule):
    """value = start."""

    kind: Literal["constant"] = "constant"


class _Decay(_Schedule):
    """From start, where the warm-up ends, to end, at `over` of training; then end."""

    end: NonNegativeFloat
    over: Fraction = 1.0

    @model_validator(mode="after")
    def _warm_before_decay_ends(self) -> Self:
        if self.warmup > self.over:
            raise ValueError(f"warmup ({self.warmup:g}) must be at most over ({self.over:g}), where the decay ends")
        return self


class LinearSchedule(_Decay):
    """In a straight line."""

    kind: Literal["linear"] = "linear"
    end: NonNegativeFloat = 1.0


class CosineSchedule(_Decay):
    """Along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    end: NonNegativeFloat = 0.0


AnySchedule = ConstantSchedule | LinearSchedule | CosineSchedule
ScalarSchedule = Annotated[AnySchedule, Field(discriminator="kind")]


def value_at(schedule: AnySchedule, progress: float) -> float:
    """The scheduled value at `progress` in [0, 1] of training.

    progress < warmup: start progress / warmup;  then, with q = min((progress - warmup) / (over - warmup), 1),
    linear: start + (end - start) q;  cosine: end + (start - end) (1 + cos(pi q)) / 2.
    """
    if progress < schedule.warmup:
        return schedule.start * progress / schedule.warmup
    if isinstance(schedule, ConstantSchedule):
        return schedule.start
    length = schedule.over - schedule.warmup
    done = 1.0 if length == 0 else min((progress - schedule.warmup) / length, 1.0)
    if isinstance(schedule, LinearSchedule):
        return schedule.start + (schedule.end - schedule.start) * done
    return schedule.end + (schedule.start - schedule.end) * (1 + math.cos(math.pi * done)) / 2
