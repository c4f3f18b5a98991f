"""A spec is a question: runs crossed with cases and seeds, and what is compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from wm.config.base import Config, NonNegativeInt
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.faults import explain
from wm.config.resolve import Layer, resolve
from wm.config.yaml import find_yaml, parse_override, read_yaml

SPECS = Path(__file__).parent / "specs"


class Comparison(NamedTuple):
    """`left - right`, named before it is run."""

    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.left} - {self.right}"


class RunPlan(NamedTuple):
    """One run that a spec asks for: a variant, in a case, with a seed."""

    run: str
    case: str
    seed: int
    config: ExperimentConfig

    @property
    def title(self) -> str:
        """`align_recon seed 1`, with the case when there are several."""
        return " ".join(part for part in (self.case, self.run, f"seed {self.seed}") if part)


class Spec(Config):
    """The file format of experiments/specs.

    Args:
        reference: the run that search spaces and reports take as the starting point.
        runs: name -> paths and values.
        cases: name -> paths and values, crossed with runs; compared within each.
        config: paths and values shared by all.
        compare: `a - b` pairs of runs.
        metric, mode: what is compared, and whether more is better.
    """

    name: str
    question: str
    reference: str
    runs: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    cases: dict[str, dict[str, Any]] = {}
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    config: dict[str, Any] = {}
    compare: tuple[str, ...] = ()
    metric: str
    mode: Literal["max", "min"] = "max"

    @field_validator("runs", "cases", mode="before")
    @classmethod
    def _empty_entries(cls, value: Any) -> Any:
        """`baseline:` with nothing after it means no changes."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference not in self.runs:
            raise ValueError(f"reference: no run '{self.reference}'.{nearest(self.reference, self.runs)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} has a seed twice")
        for pair in self.comparisons:
            for run in pair:
                if run not in self.runs:
                    raise ValueError(f"compare: '{pair}' names no run '{run}'.{nearest(run, self.runs)}")
        return self

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The named pairs."""
        pairs: list[Comparison] = []
        for text in self.compare:
            sides = [side.strip() for side in text.split(" - ")]
            if len(sides) != 2 or not all(sides):
                raise ValueError(f"compare: expected 'a - b', got '{text}'")
            pairs.append(Comparison(*sides))
        return tuple(pairs)

    def layers(self, case: str, run: str) -> list[Layer]:
        """What the file says of one run in one case, lowest first."""
        return [
            Layer.from_tree("spec", self.config),
            Layer.from_tree(f"case '{case}'", self.cases.get(case, {})),
            Layer.from_tree(f"run '{run}'", self.runs[run]),
        ]

    def resolve_runs(self, overrides: Mapping[str, Any] | None = None) -> list[RunPlan]:
        """Every (case, run, seed) with its resolved config; `overrides` is the top layer."""
        top = Layer.from_tree("command line", overrides or {})
        plans: list[RunPlan] = []
        for case, run, seed in itertools.product(self.cases or {"": {}}, self.runs, self.seeds):
            given = [*self.layers(case, run), top]
            for layer in given:
                if "seed" in layer.values:  # else runs of different seeds would be one and the same
                    raise UserError(f"seed: a spec's own `seeds` decides it, not the {layer.name}; say seeds=[0,1]")
            layers = [*given[:-1], Layer("seed", {"seed": seed}), top]
            config = resolve(layers)
            own = given[-2].values.get("model.variant")
            if own not in (None, config.model.variant):
                raise UserError(
                    f"model.variant={config.model.variant}: run '{run}' of this spec is the variant '{own}', and its row would keep "
                    "that name; change the spec's runs instead"
                )
            if not config.data.sources:
                raise UserError("data.sources: empty; name at least one, as in data.sources.wall.path=wall")
            plans.append(RunPlan(run, case, seed, config))
        self._check_metric(plans)
        return plans

    def _check_metric(self, plans: Sequence[RunPlan]) -> None:
        for plan in plans:
            known = metric_names(plan.config)
            if self.metric not in known:
                raise UserError(f"metric: '{self.metric}' is never reported.{nearest(self.metric, known)}")


def metric_names(config: ExperimentConfig) -> list[str]:
    """The final metrics a run with this config reports that can be compared across variants."""
    planned = [
        f"plan/{name}_gh{horizon}"
        for horizon in config.evaluate.grid.goal_horizons
        for name in ("success_rate", "final_success_rate", "state_distance")
    ]
    latent = [f"val/copy_ratio_h{horizon}" for horizon in config.evaluate.horizons]
    return [*planned, *latent, "val/state_probe_r2", "val/effective_rank"]


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Spec, dict[str, Any]]:
    """A spec file, and the path=value overrides that belong to the config.

    `seeds=[0,1]` and the spec's other own fields may be overridden too.
    """
    file = find_spec(path)
    tree = read_yaml(file)
    config_overrides: dict[str, Any] = {}
    for key, value in map(parse_override, overrides):
        if key in ("seeds", "compare", "metric", "mode"):
            tree[key] = value
        else:
            config_overrides[key] = value
    tree = {key: tuple(v) if isinstance(v, list) else v for key, v in tree.items()}
    unknown = set(tree) - set(Spec.model_fields)
    if unknown:
        key = sorted(unknown)[0]
        raise UserError(f"{file}: '{key}' is not part of a spec.{nearest(key, Spec.model_fields)}")
    try:
        return Spec.model_validate({"name": file.stem, **tree}), config_overrides
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {fault}" for fault in explain(error, tree))) from error


def find_spec(path: str | Path) -> Path:
    """A file, or the name of a shipped spec."""
    return find_yaml(path, SPECS, "spec file")
