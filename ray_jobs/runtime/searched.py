"""What a sweep searches: one run of a spec, and the runs and specs that sampled values make of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from experiments.search_space import Choice, SearchSpace, check_space, load_space, value_at_path
from experiments.spec import RunPlan, Spec, load_spec
from experiments.study import Proposal, Study
from ray_jobs.runtime.runs import Opener, Run, storage_root
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.data.atomic import atomic_file, file_lock

Mode = Literal["max", "min"]
_NOT_THE_RUN = {"storage", "tracking", "resources"}  # where and how, not what


class Searched:
    """One run, in one case, and a space over it. Raises UserError for whatever can be known to be wrong before any work."""

    def __init__(self, spec: Spec, overrides: Mapping[str, Any], space: SearchSpace, case: str | None) -> None:
        self.spec, self.space, self.overrides = spec, space, dict(overrides)
        self.case = _only_case(spec, case)
        check_space(
            space, spec.model_copy(update={"cases": {self.case: spec.cases[self.case]} if self.case else {}}), overrides
        )
        base = self.config({}, 0)
        self.opener = Opener(storage_root(base.storage.root))
        self.base = self.opener.open(RunPlan(space.base, self.case, 0, base))
        self.objective: str = next(iter(space.objectives))
        self.mode: Mode = space.objectives[self.objective]
        self.prune_on: str | None = next(iter(space.prune_on), None)
        self.prune_mode: Mode = space.prune_on[self.prune_on] if self.prune_on else "min"

    @property
    def root(self) -> Path:
        """storage.root."""
        return self.opener.root

    @property
    def title(self) -> str:
        """align_vs_align_recon.alignment: what MLflow calls the sweep."""
        return f"{self.spec.name}.{self.space.name}"

    @cached_property
    def name(self) -> str:
        """The sweep's own: the title, the case and a digest of all that decides its trials, but for their number."""
        facts = {
            "space": self.space.model_dump(mode="json", exclude={"name": True, "sweep": {"num_trials", "fresh_seeds"}}),
            "base": self.base.config.model_dump(mode="json", exclude=_NOT_THE_RUN),
            "episodes": self.base.config.plan.episodes,
            "run": self.base.key,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]
        return "-".join(part for part in (self.spec.name, self.space.name, self.case, digest) if part)

    @property
    def folder(self) -> Path:
        """Where jobs, trial specs and the report lie."""
        return self.root / "sweeps" / self.name

    @property
    def study_url(self) -> str:
        """Optuna's storage; `optuna-dashboard URL` reads it."""
        return f"sqlite:///{self.root / 'optuna.db'}"

    def study(self, in_memory: bool = False) -> Study:
        """The sweep's study, made when there is none."""
        if in_memory:
            return Study(None, self.name, self.space, self.base.config, self.space.sweep)
        with file_lock(self.root / "optuna.lock"):  # two commands that make the database's tables at once break it
            return Study(self.study_url, self.name, self.space, self.base.config, self.space.sweep)

    def config(self, params: Mapping[str, Any], seed: int) -> ExperimentConfig:
        """The searched run with sampled values. Raises UserError when they do not go together."""
        layers = self.spec.layers(self.case, self.space.base)
        top = Layer.from_tree("command line", self.overrides)
        return resolve([*layers, Layer("trial", params), Layer("seed", {"seed": seed}), top])

    def runs(self, proposal: Proposal) -> list[Run]:
        """One for each seed, the judged one first."""
        seeds = range(self.space.sweep.num_seeds)
        name = f"trial {proposal.number}"
        return [self.opener.open(RunPlan(name, self.case, seed, self.config(proposal.params, seed))) for seed in seeds]

    def defaults(self) -> dict[str, Any]:
        """Searched path -> the base run's own value, where it has one."""
        found: dict[str, Any] = {}
        for path in self.space.space:
            try:
                found[path] = value_at_path(self.base.config, path)
            except UserError:
                continue  # a path of another kind than the base's
        return found

    def scales(self) -> dict[str, str]:
        """Searched path -> the kind of its parameter."""
        return {path: "choice" if isinstance(p, Choice) else p.kind for path, p in self.space.space.items()}

    def trial_spec(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """A spec that runs one trial alone."""
        return {
            "question": f"Trial {number} of sweep {self.name}, alone: {dict(params)}",
            "reference": "trial",
            "runs": {"trial": self._tree(params)},
            "cases": {self.case: {}} if self.case else {},
            "seeds": list(range(self.space.sweep.num_seeds)),
            "metric": self.objective,
            "mode": self.mode,
        }

    def confirmation_spec(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """A spec that compares a trial with the default, with seeds that the sweep never used."""
        first = self.space.sweep.num_seeds
        return {
            "question": f"Is trial {number}, the best of sweep {self.name}, better than the default? {dict(params)}",
            "reference": "default",
            "runs": {"default": self._tree({}), "best": self._tree(params)},
            "cases": {self.case: {}} if self.case else {},
            "seeds": list(range(first, first + self.space.sweep.fresh_seeds)),
            "compare": ["best - default"],
            "metric": self.objective,
            "mode": self.mode,
        }

    def _tree(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Everything said, nothing left to defaults or presets: the run stays what it is when those change."""
        return self.config(params, 0).model_dump(mode="json", exclude={*_NOT_THE_RUN, "seed"})


def open_sweep(
    spec: str,
    space: str,
    arguments: Sequence[str] = (),
    *,
    run: str | None = None,
    case: str | None = None,
) -> Searched:
    """From the command line's words; `sweep.` overrides are of the search, the others of the config."""
    search: dict[str, Any] = {}
    loaded, overrides = load_spec(spec, arguments)
    for path in [path for path in overrides if path.startswith("sweep.")]:
        search[path.removeprefix("sweep.")] = overrides.pop(path)
    found: SearchSpace = load_space(space, search)
    if run is not None:
        found = found.model_copy(update={"base": run})
    return Searched(loaded, overrides, found, case)


def write_spec(path: Path, tree: Mapping[str, Any]) -> None:
    """A spec file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(tree))), encoding="utf-8")


def _only_case(spec: Spec, case: str | None) -> str:
    if case is not None and case not in spec.cases:
        raise UserError(f"--case: no case '{case}' in {spec.name}.{nearest(case, spec.cases)}")
    if case is None and len(spec.cases) > 1:
        raise UserError(f"--case: {spec.name} has {len(spec.cases)} cases; say which: {', '.join(spec.cases)}")
    return case or next(iter(spec.cases), "")
