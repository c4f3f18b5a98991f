"""Limits that actions pass through between planner and robot: raw units, env step by env step."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, PositiveFloat


class VelocityLimitConfig(Config):
    """The length of the action is at most `max_norm`.

    Args:
        actions: names of the entries that are measured together; none: all.
    """

    kind: Literal["velocity"] = "velocity"
    max_norm: PositiveFloat
    actions: tuple[str, ...] = ()


class DeltaLimitConfig(Config):
    """An entry changes by at most `max_change` from one env step to the next.

    Args:
        actions: names of the entries; none: all.
    """

    kind: Literal["delta"] = "delta"
    max_change: PositiveFloat
    actions: tuple[str, ...] = ()


class PositionLimitConfig(Config):
    """Actions that move something keep it in a box: the workspace of an end effector, the range of joints.

    Args:
        actions: names of the entries that move it; none: all.
        positions: names of the proprio entries that say where it is, one for each action, in the same order.
        low, high: of each position.
        scale: how far a position moves for an action of 1 in an env step.
    """

    kind: Literal["workspace", "joint"] = "workspace"
    actions: tuple[str, ...] = ()
    positions: Annotated[tuple[str, ...], Field(min_length=1)]
    low: tuple[float, ...]
    high: tuple[float, ...]
    scale: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        sizes = {"positions": self.positions, "low": self.low, "high": self.high}
        if self.actions:
            sizes["actions"] = self.actions
        if len({len(values) for values in sizes.values()}) != 1:
            counts = ", ".join(f"{name} {len(values)}" for name, values in sizes.items())
            raise ValueError(f"one entry of each for every position, got {counts}")
        for name, low, high in zip(self.positions, self.low, self.high, strict=True):
            if not low < high:
                raise ValueError(f"low must be below high; for {name} they are {low:g} and {high:g}")
        return self


class CustomLimitConfig(Config):
    """Anything else, such as a control barrier function.

    Args:
        target: `module:name` of what makes the limit, called with `config`; it gets (action, previous, proprio), raw, and returns
            the action that may be executed.
    """

    kind: Literal["custom"] = "custom"
    target: str
    config: dict[str, Any] = {}


LimitConfig = Annotated[
    VelocityLimitConfig | DeltaLimitConfig | PositionLimitConfig | CustomLimitConfig, Field(discriminator="kind")
]
