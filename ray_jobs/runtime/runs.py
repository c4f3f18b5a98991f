"""The runs of a spec, opened: their inputs, names and what each has come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.provenance import git_commit
from experiments.spec import RunPlan, Spec
from ray_jobs.runtime.storage import storage_root
from ray_jobs.runtime.trial import RunJob, StoredShape
from wm.build import build_encoder
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.hashing import eval_hash
from wm.contracts import Encoder
from wm.data.dataset import need_public
from wm.training_run import RunInputs

CONTROL = "random"  # the run name of the random-action control in paths


@dataclass
class Run:
    """One run of an experiment.

    Args:
        failure: why it could not be completed, or None.
    """

    plan: RunPlan
    inputs: RunInputs
    failure: str | None = None

    @property
    def config(self) -> ExperimentConfig:
        """Resolved, with an absolute storage.root."""
        return self.inputs.config

    @property
    def title(self) -> str:
        """For people."""
        return self.plan.title

    @property
    def name(self) -> str:
        """For MLflow: case, seed, then the variant as a suffix."""
        return "_".join(part for part in (self.plan.case, f"seed{self.plan.seed}", self.plan.run) if part)

    @property
    def key(self) -> str:
        """12 hex digits of what is trained and how it is planned with. Runs that differ in planning only share a training."""
        return eval_hash(self.config, self.inputs.hash)

    @property
    def is_complete(self) -> bool:
        """Trained to the end."""
        return self.inputs.folder.result() is not None

    @property
    def total_steps(self) -> int:
        """Optimiser steps to the end."""
        return self.inputs.total_steps

    @property
    def job(self) -> RunJob:
        """What a trial is given."""
        return RunJob(
            config_json=self.config.model_dump_json(),
            root=str(self.inputs.root),
            hash=self.inputs.hash,
            commit=git_commit(),
            tokens=[
                StoredShape(size=size, dim=encoder.dim, grid=encoder.grid, fingerprint=encoder.fingerprint)
                for size, encoder in self.inputs.encoders.items()
            ],
        )

    def outcome_file(self, goal_horizon: int, problem: str) -> Path:
        """Where the outcome of one planning problem goes."""
        folder = self.inputs.folder.path / "planning" / self.key
        return folder / f"gh{goal_horizon}" / f"{problem.replace('/', '_')}.json"

    def control_file(self, goal_horizon: int, problem: str) -> Path:
        """Where the random control's outcome of the same problem goes: one for all variants of a data set."""
        key = eval_hash(self.config, f"{CONTROL}/{self.inputs.dataset.fingerprint}")
        return (
            self.inputs.root
            / "problems"
            / f"{CONTROL}_{key}"
            / f"gh{goal_horizon}"
            / f"{problem.replace('/', '_')}.json"
        )


def open_runs(spec: Spec, overrides: Mapping[str, Any]) -> list[Run]:
    """Resolve and open every run of a spec. Raises UserError for whatever can be known to be wrong before any work."""
    plans = spec.resolve_runs(overrides)
    opener = Opener(storage_root(plans[0].config.storage.root))
    runs = [opener.open(plan) for plan in plans]
    _check_distinct(runs)
    return runs


class Opener:
    """Opens runs under one storage.root, each encoder once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._encoders: dict[str, Encoder] = {}

    def open(self, plan: RunPlan) -> Run:
        """Raises UserError when the data or the encoder are not what the config says, or episodes are too short."""
        storage = plan.config.storage.model_copy(update={"root": str(self.root)})
        config = plan.config.model_copy(update={"storage": storage})
        need_public(config.data, self.root)  # before an encoder is asked for, which may wait for a network
        key = config.encoder.model_dump_json()
        if key not in self._encoders:
            self._encoders[key] = build_encoder(config.encoder)
        inputs = RunInputs(config, self.root, self._encoders[key])
        inputs.check_start()
        inputs.dataset.held_out_kinds(config.model.history_len + config.longest_horizon)
        return Run(plan._replace(config=config), inputs)


def _check_distinct(runs: Sequence[Run]) -> None:
    """Two runs with one key would be one run under two names."""
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.key, run)
        if other is not run:
            raise UserError(f"runs: '{run.title}' and '{other.title}' are exactly the same; make them differ")
