"""Where a run happens and where it is recorded. Nothing here changes its numbers."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from wm.config.base import Config, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class TrackingConfig(Config):
    """MLflow.

    Args:
        uri: a tracking server or database; None means SQLite under storage.root.
        experiment: MLflow experiment; None means the spec's name.
    """

    uri: str | None = None
    experiment: str | None = None


class StorageConfig(Config):
    """One absolute folder for data, tokens, runs, problems and MLflow.

    Args:
        root: None means the WM_HOME variable, else ./wm_home; resolved to an absolute path at submission.
        tokens: a folder, absolute or on any filesystem that fsspec knows (s3://bucket/tokens), where encoded tokens are kept, too:
            an episode that is there is copied under root instead of being encoded, and what is encoded is copied there. None: under
            root alone.
    """

    root: str | None = None
    tokens: str | None = None

    @field_validator("tokens")
    @classmethod
    def _tokens_are_for_all(cls, tokens: str | None) -> str | None:
        """Every process of every machine, of this run and of the next, must find the same folder."""
        if tokens is None:
            return None
        parts = re.split("::|://", tokens)
        is_kept = "memory" not in parts[:-1]
        is_local = len(parts) == 1 or parts[-2] in ("file", "local")
        if is_kept and (not is_local or parts[-1].startswith("/")):
            return tokens
        what = "lies in a folder relative to where each process is" if is_kept else "is gone with the process"
        raise ValueError(f"expected an absolute folder or a URL as s3://bucket/tokens, but this {what}")


class ResourcesConfig(Config):
    """What the platform may use at once. Checked against the machine before Ray starts.

    Args:
        num_workers: training workers of one run.
        cpus_per_worker: logical CPUs of a training worker. Below 1 leaves room for Ray Data's tasks beside it.
        cpus_per_data_task: logical CPUs of a reading task.
        gpus_per_worker: whole or fractional.
        runs_at_once: None fills the machine.
        planning_actors: None means as many as fit.
        cpus_per_planning_actor, gpus_per_planning_actor: whole or fractional; below 1 CPU, one fits beside a trial's driver.
        gpus_per_encoding_actor: of each actor that fills the token store, where Ray has GPUs and train.device is not cpu. With a
            half, one reads frames while the other encodes. 0 encodes on CPUs.
        autoscaling: nodes come when they are asked for: what is there now limits nothing, and runs_at_once must be said.
        max_failures: restarts of a run's workers before the run counts as failed.
        problem_timeout_s: a planning problem that takes longer counts as failed. Loading the model and waiting for a place do not
            count; problems planned together have as many times as long.
        planning_memory_gb: of activations while plans are rolled out; more samples are rolled out in chunks.
    """

    num_workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 0.75
    cpus_per_data_task: PositiveFloat = 0.2
    gpus_per_worker: NonNegativeFloat = 0.0
    runs_at_once: PositiveInt | None = None
    planning_actors: PositiveInt | None = None
    cpus_per_planning_actor: PositiveFloat = 0.95
    gpus_per_planning_actor: NonNegativeFloat = 0.0
    gpus_per_encoding_actor: Annotated[float, Field(ge=0, le=1)] = 0.5
    autoscaling: bool = False
    max_failures: NonNegativeInt = 3
    problem_timeout_s: PositiveFloat = 1800.0
    planning_memory_gb: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _autoscaling_is_bounded(self) -> Self:
        if self.autoscaling and self.runs_at_once is None:
            raise ValueError("autoscaling needs runs_at_once: how many runs nodes may be bought for")
        return self
