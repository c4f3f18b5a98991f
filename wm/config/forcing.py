"""Shortcut forcing: which signal levels and step sizes a model is trained on, and how its errors are weighed."""

from __future__ import annotations

from itertools import pairwise
from math import exp
from statistics import NormalDist
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, PositiveFloat
from wm.config.schedule import ConstantSchedule, ScalarSchedule, value_at

Below1 = Annotated[float, Field(ge=0, lt=1)]


class UniformTau(Config):
    """Signal is spread evenly: Q(u) = u."""

    kind: Literal["uniform"] = "uniform"


class LogitNormalTau(Config):
    """Signal gathers where sigmoid(N(mean, std^2)) does: Q(u) = sigmoid(mean + std Phi^-1(u)).

    Args:
        mean: in logits; negative spends more of the grid on noise.
        std: in logits.

    Source: Esser et al., arXiv 2403.03206, section 3.1, as a quantile function on a fixed grid, not a density to sample from.
    """

    kind: Literal["logit_normal"] = "logit_normal"
    mean: Annotated[float, Field(ge=-4, le=4)] = 0.0
    std: PositiveFloat = 1.0


TauDistribution = Annotated[UniformTau | LogitNormalTau, Field(discriminator="kind")]


class ForcingConfig(Config):
    """Shortcut forcing on a dyadic grid u = 0, 1/k_max, ..., 1 with signal levels tau = s(u) (`signal_levels`).

    Args:
        k_max: sampling steps of the finest grid; a power of two. d_min = 1/k_max.
        grid: share of k_max in use over training, rounded down to a power of two of at least two steps: a curriculum from a coarse
            grid to the whole one. Must end at 1.
        bootstrap_fraction: share of clips that learn larger steps from the model's own half-steps; the others learn flow.
        bootstrap_warmup: share of training before the first of them.
        clean_probability: of each frame of a flow clip to be given without noise, as context alone: it has no loss.
        ramp_floor: weight of a frame without signal: w(tau) = (1 - floor) tau + floor.
        tau_min, tau_max: bounds of the sampled signal above 0 and below 1; 0 and 1 themselves stay the grid's ends.
        tau_power: of u, before all else; above 1 spends more of the grid on noise.
        tau_distribution: the quantile function that follows.
        dimension_shift: alpha of q / (alpha - (alpha - 1) q), applied to that; `auto`: max(1, sqrt(tokens x channels / 4096)).
        context_signal: signal of context frames at inference; the nearest grid point below 1 is taken.
        rms_decay: of the running root mean square that divides each kind's loss, by optimiser step.
        rms_floor: smallest divisor, in variances of a standardised latent. At 0 a bootstrap loss, whose targets move with the model,
            pulls no less the smaller it is: small networks then diverge.
    """

    kind: Literal["shortcut"] = "shortcut"
    k_max: Annotated[int, Field(ge=8, le=128)] = 64
    grid: ScalarSchedule = ConstantSchedule()
    bootstrap_fraction: Fraction = 0.25
    bootstrap_warmup: Fraction = 0.0
    clean_probability: Below1 = 0.05
    ramp_floor: Fraction = 0.1
    tau_min: Below1 = 0.0
    tau_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    tau_power: PositiveFloat = 1.0
    tau_distribution: TauDistribution = UniformTau()
    dimension_shift: Literal["none", "auto"] | Annotated[float, Field(ge=1, allow_inf_nan=False)] = "none"
    context_signal: Annotated[float, Field(gt=0, le=1)] = 0.9
    rms_decay: Below1 = 0.99
    rms_floor: NonNegativeFloat = 0.05

    @model_validator(mode="after")
    def _grid_is_dyadic(self) -> Self:
        if self.k_max & (self.k_max - 1):
            raise ValueError(f"k_max ({self.k_max}) must be a power of two: 8, 16, 32, 64 or 128")
        if value_at(self.grid, 1.0) != 1:
            raise ValueError(
                f"grid must end at 1, the whole grid that sampling uses, not at {value_at(self.grid, 1.0):g}"
            )
        return self

    @model_validator(mode="after")
    def _signal_rises(self) -> Self:
        if self.tau_min >= self.tau_max:
            raise ValueError(f"tau_min ({self.tau_min:g}) must be below tau_max ({self.tau_max:g})")
        # What `auto` is depends on the encoder: SignalGrid checks it when the model is built.
        signal_levels(self, self.dimension_shift if isinstance(self.dimension_shift, float) else 1.0)
        return self


# Relative. Above float32's 1.2e-7, with room for arithmetic.
_SMALLEST_RISE = 1e-6


def signal_levels(config: ForcingConfig, alpha: float) -> tuple[float, ...]:
    """s(0), s(1/k_max), ..., s(1), strictly rising from 0 to 1.

    s(u) = tau_min + (tau_max - tau_min) shift(Q(u^power)) between the ends, shift(q) = q / (alpha - (alpha - 1) q).
    The range comes last, so that tau_min bounds the signal that a frame really has.

    Args:
        alpha: of the dimension shift, at least 1.

    Raises ValueError where neighbouring levels are too close for float32 to tell apart.
    """

    def signal(u: float) -> float:
        quantile = _quantile(config.tau_distribution, u**config.tau_power)
        shifted = quantile / (alpha - (alpha - 1) * quantile)
        return config.tau_min + (config.tau_max - config.tau_min) * shifted

    levels = (0.0, *(signal(i / config.k_max) for i in range(1, config.k_max)), 1.0)
    for place, (lower, upper) in enumerate(pairwise(levels)):
        if upper - lower < _SMALLEST_RISE * upper or upper == 0:
            raise ValueError(
                f"the signal must rise at every step of the grid, but levels {place} and {place + 1} of {config.k_max} are "
                f"{lower:g} and {upper:g}; take a milder tau_power ({config.tau_power:g}), tau_distribution "
                f"({config.tau_distribution.kind}) or range of tau ({config.tau_min:g} to {config.tau_max:g})"
            )
    return levels


def _quantile(distribution: UniformTau | LogitNormalTau, u: float) -> float:
    # A power can round to an end, where Phi^-1 is infinite.
    if isinstance(distribution, UniformTau) or u in (0.0, 1.0):
        return u
    logit = distribution.mean + distribution.std * NormalDist().inv_cdf(u)
    return 1 / (1 + exp(-logit)) if logit > 0 else 1 - 1 / (1 + exp(logit))
