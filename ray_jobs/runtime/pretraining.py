"""One training of an encoder, opened: its inputs, how it is recorded, what has come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pretrain_spec import PretrainSpec
from experiments.provenance import git_commit, library_versions, machine
from experiments.tracking import RunLog, Tracker, flatten
from ray_jobs.runtime.pretrain_trial import PretrainJob
from ray_jobs.runtime.recording import keep_diff
from wm.config.pretrain import PretrainConfig
from wm.pretraining_run import PretrainInputs


@dataclass
class Pretraining:
    """The training that a spec asks for.

    Args:
        failure: why it could not be completed, or None.
    """

    spec: PretrainSpec
    inputs: PretrainInputs
    failure: str | None = None

    @property
    def config(self) -> PretrainConfig:
        """Resolved, with an absolute storage.root."""
        return self.inputs.config

    @property
    def title(self) -> str:
        """For people."""
        return self.spec.name

    @property
    def total_steps(self) -> int:
        """Optimiser steps, if it is not ended before."""
        return self.inputs.total_steps

    @property
    def result(self) -> dict[str, Any] | None:
        """What it ended with, or None."""
        return self.inputs.folder.result()

    @property
    def steps_done(self) -> int:
        """Up to the end, or to the newest checkpoint."""
        history = self.inputs.folder.history()
        return history[-1]["step"] if history else 0

    @property
    def exported(self) -> Path:
        """Where the encoder goes."""
        return self.inputs.folder.path / "encoder"

    @property
    def job(self) -> PretrainJob:
        """What a trial is given."""
        return PretrainJob(
            config_json=self.config.model_dump_json(),
            root=str(self.inputs.root),
            hash=self.inputs.hash,
            commit=git_commit(),
        )

    def open_log(self, tracker: Tracker) -> RunLog:
        """Its MLflow run; the same command finds the same one."""
        tags = {
            "wm.role": "encoder",
            "wm.purpose": self.spec.purpose,
            "wm.train_hash": self.inputs.hash,
            "spec": self.spec.name,
            **{key: value for key, value in self.provenance.items() if key != "versions"},
            **{f"version.{name}": version for name, version in library_versions().items()},
        }
        # Paths and addresses stay out: they are this machine's, and an address may hold a password.
        params = flatten(self.config.model_dump(mode="json", exclude={"storage", "tracking"}))
        log = tracker.open_run(self.spec.name, self.inputs.hash, tags=tags, params=params)
        keep_diff(log)
        return log

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where its numbers come from."""
        return {
            "commit": git_commit(),
            "data_fingerprint": self.inputs.dataset.fingerprint,
            "machine": machine(),
            "versions": ", ".join(f"{name} {version}" for name, version in library_versions().items()),
        }
