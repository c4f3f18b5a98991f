"""How much of every global batch comes from which source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from wm.config.base import Config
from wm.config.errors import nearest
from wm.config.schedule import AnySchedule, ConstantSchedule, ScalarSchedule, value_at

LABELLED, UNLABELLED = "labelled", "unlabelled"
_DEFAULT_FRACTION = 0.05  # 19 unlabelled clips to 1


class MixtureConfig(Config):
    """Shares of the global batch. Nothing given: all clips are one pool, so that each source has the share of its clips.

    Args:
        groups: named lists of sources; the clips of a group are one pool. A source in no group is a group of its own name.
        weights: of every group, over training; its share of the batch is its weight over their sum.
        labelled_fraction: instead of weights, where the groups are `labelled` and `unlabelled`: the share of the first. None
            with these two and no weights is 0.05.
    """

    groups: dict[str, tuple[str, ...]] = {}
    weights: dict[str, ScalarSchedule] = {}
    labelled_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None

    @property
    def is_given(self) -> bool:
        """Whether there are shares at all."""
        return self != MixtureConfig()

    def pools(self, sources: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Sources by group, in the order of names; one group without a name where no mixture is given.

        Raises ValueError where a source has no weight, two groups, or does not exist.
        """
        known = tuple(sources)
        if not self.is_given:
            return {"": known}
        group_of: dict[str, str] = {}
        for group, members in self.groups.items():
            for name in members:
                if name not in known:
                    raise ValueError(f"mixture.groups.{group}: no source is named '{name}'.{nearest(name, known)}")
                if name in group_of:
                    raise ValueError(f"mixture.groups.{group}: '{name}' is in '{group_of[name]}' already")
                group_of[name] = group
        alone = [name for name in known if name not in group_of]
        for name in alone:
            if name in self.groups:
                raise ValueError(f"mixture.groups.{name}: a source that is in no group has this name; choose another")
        pools = {**self.groups, **{name: (name,) for name in alone}}
        weights = self.weights_of(pools)
        for name in weights:
            if name not in pools:
                raise ValueError(f"mixture.weights.{name}: no such group or source.{nearest(name, pools)}")
        for name in pools:
            if name not in weights:
                raise ValueError(f"mixture.weights.{name}: must be given, as every group and source outside one")
        return dict(sorted(pools.items()))

    def weights_of(self, pools: Mapping[str, object]) -> dict[str, AnySchedule]:
        """The weight of each group, by name."""
        if not self.is_given:
            return {name: ConstantSchedule() for name in pools}
        if self.weights or set(pools) != {LABELLED, UNLABELLED}:
            return dict(self.weights)
        share = _DEFAULT_FRACTION if self.labelled_fraction is None else self.labelled_fraction
        # Rounded: 1 - 0.07 is 0.9299999999999999, which is in no ratio to 0.07.
        return {LABELLED: ConstantSchedule(start=share), UNLABELLED: ConstantSchedule(start=round(1 - share, 12))}

    @model_validator(mode="after")
    def _shares_are_some(self) -> Self:
        if self.labelled_fraction is not None and (self.weights or set(self.groups) != {LABELLED, UNLABELLED}):
            raise ValueError(
                "labelled_fraction needs the groups 'labelled' and 'unlabelled' and no weights; others have mixture.weights"
            )
        for group, members in self.groups.items():
            if not members:
                raise ValueError(f"groups.{group}: names no source")
        for name, weight in self.weights.items():
            if value_at(weight, 0) == value_at(weight, 1) == 0 and not weight.start:
                raise ValueError(f"weights.{name}: 0 never takes a clip; remove the source instead")
        for progress in (0.0, 1.0):
            if self.weights and not any(value_at(weight, progress) for weight in self.weights.values()):
                raise ValueError(f"weights: all are 0 at {progress:g} of training")
        return self
