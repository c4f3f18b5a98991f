"""How a space is searched: how many trials, with how many seeds, and when one is stopped early."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wm.config.base import Config, NonNegativeInt, PositiveInt


class NoPruning(Config):
    """Every trial trains to the end."""

    kind: Literal["none"] = "none"


class AshaPruning(Config):
    """Asynchronous successive halving on the space's `prune_on` metric.

    At epochs grace_epochs x reduction_factor^k before the last, a trial goes on only if it is among the best
    1/reduction_factor of those that came this far. Source: Li et al. 2018, arXiv:1810.05934, algorithm 2.
    """

    kind: Literal["asha"] = "asha"
    grace_epochs: PositiveInt = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class SweepConfig(Config):
    """The search itself; `sweep.` in overrides, `sweep:` in a space file.

    Args:
        num_trials: in all, those of an earlier start included.
        num_seeds: training seeds of a trial, 0, 1, ...; the first is judged while it trains, the others follow if it ends.
        num_startup_trials: drawn at random before the estimator (TPE) proposes.
        seed: of the proposals.
        fresh_seeds: with how many new seeds the best trial and the default are run again; 0 leaves the best unconfirmed.
    """

    num_trials: PositiveInt = 20
    num_seeds: PositiveInt = 1
    num_startup_trials: NonNegativeInt = 5
    seed: NonNegativeInt = 0
    pruning: Annotated[AshaPruning | NoPruning, Field(discriminator="kind")] = AshaPruning()
    fresh_seeds: NonNegativeInt = 2
