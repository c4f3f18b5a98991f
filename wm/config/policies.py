"""What makes demonstrations: each policy and its settings. Sizes of noise are shares of half the world's action range."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, PositiveFloat


class RandomPolicyConfig(Config):
    """Independent actions in the world's range.

    Args:
        distribution: `uniform` over the range, or `normal` around its middle, clipped to it.
        std: of `normal`.
    """

    kind: Literal["random"] = "random"
    distribution: Literal["uniform", "normal"] = "uniform"
    std: NonNegativeFloat = 0.5


class SmoothPolicyConfig(Config):
    """Ornstein-Uhlenbeck noise around the middle of the range, clipped to it.

    Args:
        time_constant: env steps after which the correlation has fallen to 1/e.
        std: of the stationary noise.
    """

    kind: Literal["smooth"] = "smooth"
    time_constant: PositiveFloat = 5.0
    std: NonNegativeFloat = 0.5


class WanderPolicyConfig(Config):
    """A heading that drifts by von Mises angles; for two action components. Lengths are raw action units."""

    kind: Literal["wander"] = "wander"
    concentration: NonNegativeFloat = 1 / 0.2
    mean_length: NonNegativeFloat = 0.6
    std_length: NonNegativeFloat = 0.25
    min_length: NonNegativeFloat = 0.1
    max_length: NonNegativeFloat = 1.2
    door_fraction: Fraction = 0.3

    @model_validator(mode="after")
    def _lengths_are_ordered(self) -> Self:
        if not self.min_length <= self.mean_length <= self.max_length:
            raise ValueError(
                f"expected min_length <= mean_length <= max_length, got {self.min_length:g}, {self.mean_length:g}, "
                f"{self.max_length:g}"
            )
        return self


class PushPolicyConfig(Config):
    """Random pushes through what lies on the table, as the rope and granular data were made.

    Args:
        past: range of the way past the particle, units along x.
    """

    kind: Literal["push"] = "push"
    past: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)

    @model_validator(mode="after")
    def _past_is_a_range(self) -> Self:
        if self.past[0] > self.past[1]:
            raise ValueError(f"past {list(self.past)}: expected low <= high")
        return self


class ExpertPolicyConfig(Config):
    """The world's own script, which tries to solve the drawn problem."""

    kind: Literal["expert"] = "expert"


class ExpertNoisyPolicyConfig(Config):
    """The expert's actions plus independent normal noise, clipped to the range.

    Args:
        std: of the noise.
    """

    kind: Literal["expert_noisy"] = "expert_noisy"
    std: NonNegativeFloat = 0.2


PolicyConfig = Annotated[
    RandomPolicyConfig
    | SmoothPolicyConfig
    | WanderPolicyConfig
    | PushPolicyConfig
    | ExpertPolicyConfig
    | ExpertNoisyPolicyConfig,
    Field(discriminator="kind"),
]
