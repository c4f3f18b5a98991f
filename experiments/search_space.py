"""A search space is data: config paths, their ranges, conditions and references."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from experiments.spec import Spec, metric_names
from experiments.sweep_config import SweepConfig
from wm.config.base import Config
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.faults import explain
from wm.config.resolve import Layer, resolve, resolve_section
from wm.config.yaml import read_yaml

SPACES = Path(__file__).parent.parent / "search_spaces"


# Of every trial of a sweep, or their objectives would not be of the same problems.
_FIXED = ("seed", "data", "encoder", "evaluate", "storage", "tracking", "resources")


class Reference(Config):
    """A bound that is the sampled, or else configured, value of another path."""

    ref: str


class _Parameter(Config):
    """`when`: path -> values of it for which this parameter is sampled."""

    when: dict[str, tuple[Any, ...]] = {}


class Choice(_Parameter):
    """One of some values."""

    kind: Literal["choice"]
    values: Annotated[tuple[Any, ...], Field(min_length=1)]


class Number(_Parameter):
    """A number in [low, high]; either bound may refer to another path."""

    kind: Literal["int", "uniform", "loguniform"]
    low: int | float | Reference
    high: int | float | Reference

    @field_validator("low", "high", mode="before")
    @classmethod
    def _is_bound(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number and not isinstance(value, Mapping | Reference):
            raise ValueError(f"expected a finite number or {{ref: path}}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        for bound in (self.low, self.high):
            if self.kind == "int" and isinstance(bound, float):
                raise ValueError(f"an int range needs whole bounds, got {bound}")
        if not isinstance(self.low, Reference):
            if self.kind == "loguniform" and self.low <= 0:
                raise ValueError(f"loguniform needs low above 0, got {self.low}")
            if not isinstance(self.high, Reference) and self.low >= self.high:
                raise ValueError(f"empty range: low {self.low}, high {self.high}")
        return self


Parameter = Annotated[Choice | Number, Field(discriminator="kind")]


class SearchSpace(Config):
    """The file format of search_spaces.

    Args:
        base: the run of the spec that is searched.
        objectives: metric -> max or min; they replace the spec's metric.
        prune_on: one scale-free validation metric -> max or min, for stopping early.
        sweep: how it is searched.
        space: config path -> parameter.
    """

    name: str
    base: str
    sweep: SweepConfig = SweepConfig()
    objectives: Annotated[dict[str, Literal["max", "min"]], Field(min_length=1)]
    prune_on: Annotated[dict[str, Literal["max", "min"]], Field(max_length=1)] = {}
    space: Annotated[dict[str, Parameter], Field(min_length=1)]

    @model_validator(mode="after")
    def _references_are_sampled_first(self) -> Self:
        seen: set[str] = set()
        for path, parameter in self.space.items():
            for other, values in parameter.when.items():
                if other in self.space and other not in seen:
                    raise ValueError(f"{path}: its condition '{other}' must stand before it")
                source = self.space.get(other)
                if isinstance(source, Choice) and not all(value in source.values for value in values):
                    raise ValueError(f"{path}: '{other}' is never one of {list(values)}")
            if isinstance(parameter, Number):
                for bound in (parameter.low, parameter.high):
                    if isinstance(bound, Reference) and bound.ref in self.space and bound.ref not in seen:
                        raise ValueError(f"{path}: its bound '{bound.ref}' must stand before it")
            seen.add(path)
        return self

    def active(self, path: str, sampled: Mapping[str, Any], base: ExperimentConfig) -> bool:
        """Whether the conditions of `path` hold for the values sampled so far."""
        return all(
            self._value_of(other, path, sampled, base) in values for other, values in self.space[path].when.items()
        )

    def _value_of(self, other: str, path: str, sampled: Mapping[str, Any], base: ExperimentConfig) -> Any:
        """What `path`'s condition or bound refers to, as sampled or else configured."""
        if other in sampled:
            return sampled[other]
        try:
            return value_at_path(base, other)
        except UserError as error:
            raise UserError(f"{self.name}: {path}: refers to {error}") from error

    def bounds(self, path: str, sampled: Mapping[str, Any], base: ExperimentConfig) -> tuple[float, float]:
        """(low, high) of a Number with references replaced; whole for `int`, else floats, whatever the file wrote."""
        parameter = self.space[path]
        if not isinstance(parameter, Number):
            raise TypeError(f"{path} has no bounds")

        def number(bound: int | float | Reference) -> float:
            if not isinstance(bound, Reference):
                return bound if parameter.kind == "int" else float(bound)
            found = self._value_of(bound.ref, path, sampled, base)
            expected = int if parameter.kind == "int" else int | float
            if not isinstance(found, expected) or isinstance(found, bool):
                wanted = "a whole number" if parameter.kind == "int" else "a number"
                raise UserError(f"{self.name}: {path}: '{bound.ref}' is {found!r}, not {wanted}")
            return found if parameter.kind == "int" else float(found)

        low, high = number(parameter.low), number(parameter.high)
        if low > high:
            raise UserError(f"{self.name}: {path}: empty range: low {low}, high {high}")
        return low, high

    def corners(self, base: ExperimentConfig) -> Iterator[dict[str, Any]]:
        """Every combination of choices and of range ends: what must resolve if anything does."""
        yield from self._corners(list(self.space), {}, base)

    def _corners(self, paths: list[str], sampled: dict[str, Any], base: ExperimentConfig) -> Iterator[dict[str, Any]]:
        if not paths:
            yield dict(sampled)
            return
        path, rest = paths[0], paths[1:]
        if not self.active(path, sampled, base):
            yield from self._corners(rest, sampled, base)
            return
        parameter = self.space[path]
        ends = parameter.values if isinstance(parameter, Choice) else dict.fromkeys(self.bounds(path, sampled, base))
        for value in ends:
            yield from self._corners(rest, {**sampled, path: value}, base)


def value_at_path(config: ExperimentConfig, path: str) -> Any:
    """The value at a dotted path of a resolved config. Raises UserError when there is none."""
    node: Any = config
    before = ""
    for step in path.split("."):
        names = (
            list(node)
            if isinstance(node, Mapping)
            else list(type(node).model_fields)
            if isinstance(node, Config)
            else []
        )
        if step not in names:
            valid = [f"{before}{name}" for name in names]
            raise UserError(f"{path}: the searched config has no such setting.{nearest(f'{before}{step}', valid)}")
        node = node[step] if isinstance(node, Mapping) else getattr(node, step)
        before += f"{step}."
    return node


def load_space(name: str | Path, sweep: Mapping[str, Any] | None = None) -> SearchSpace:
    """A space file, or the name of a shipped one.

    Args:
        sweep: overrides of its `sweep` section, as in {"num_trials": 8, "pruning.kind": "none"}.
    """
    shipped = {space.stem: space for space in SPACES.glob("*.yaml")}
    file = Path(name) if Path(name).is_file() else shipped.get(str(name))
    if file is None:
        raise UserError(f"unknown search space '{name}'.{nearest(str(name), shipped)}")
    tree = {"name": file.stem, **read_yaml(file)}
    layers = [Layer.from_tree(str(file), tree.pop("sweep", None) or {}), Layer.from_tree("command line", sweep or {})]
    chosen = resolve_section(SweepConfig, layers, "sweep")
    try:
        return SearchSpace.model_validate_json(json.dumps({**tree, "sweep": chosen.model_dump(mode="json")}))
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {fault}" for fault in explain(error, tree))) from error


def check_space(space: SearchSpace, spec: Spec, overrides: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """Resolve every corner of `space` over the spec's base run in every case; returns that run's config in the first.

    Args:
        overrides: the top layer, above what is sampled.

    Raises UserError naming the space, the corner and the fault.
    """
    top = Layer.from_tree("command line", overrides or {})
    for path in space.space:
        if path.split(".", 1)[0] in _FIXED:
            raise UserError(
                f"{space.name}: {path}: cannot be searched: trials share their data, encoder, problems, seeds and resources"
            )
        if path in top.values:
            raise UserError(f"{path}: the space '{space.name}' searches it; leave it out")
    if space.base not in spec.runs:
        raise UserError(f"{space.name}: base: no run '{space.base}' in {spec.name}.{nearest(space.base, spec.runs)}")
    plans = {plan.case: plan for plan in reversed(spec.resolve_runs(overrides)) if plan.run == space.base}
    for case, plan in plans.items():
        known = metric_names(plan.config)
        for metric in (*space.objectives, *space.prune_on):
            if metric not in known:
                raise UserError(f"{space.name}: '{metric}' is never reported.{nearest(metric, known)}")
        layers = spec.layers(case, space.base)
        for corner in space.corners(plan.config):
            try:
                resolve([*layers, Layer("trial", corner), top])
            except UserError as error:
                where = f"in case '{case}', at" if case else "at"
                raise UserError(f"{space.name}: {where} {corner}: {error}") from error
    return plans[next(iter(spec.cases), "")].config
