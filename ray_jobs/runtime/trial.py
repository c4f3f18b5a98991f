"""One run's life under Ray: a Tune trial that fits a TorchTrainer.

submitted --> complete already? --yes--> reports `complete`
    | no
    v
TorchTrainer.fit --> worker: newest whole checkpoint? --> train --> report rows, checkpoints --> result.json --> `complete`
    ^                                |                      |
    |                                |                      +-- UserError --> reports `failure`, never retried
    +---- a worker dies: restart, at most resources.max_failures times
The driver dies: the same command makes a new trial, which finds the run's folder and goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import ray.train
import ray.train.torch
from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from ray_jobs.runtime.stream import ClipSource, stream_batches
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.data.token_files import StoredTokens
from wm.training_run import RunFolder, RunInputs
from wm.types import Batch


class RunJob(TypedDict):
    """What a trial is given: plain values, so that any process on any node can rebuild the run."""

    config_json: str
    root: str
    hash: str
    commit: str
    encoder_fingerprint: str
    token_dim: int
    token_grid: tuple[int, int]


class TrainReporter:
    """The training core's reports as Ray Train's.

    Checkpoints stay in the run's own folder, written atomically by the core; Ray Train is given a pointer to each, since it
    accepts only what lies in its own storage.
    """

    def report(self, step: int, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
        """Every rank must call this equally often: it is a barrier."""
        values = {"step": step, "metrics": dict(metrics)}
        if checkpoint is None:
            ray.train.report(values)
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "pointer.json").write_text(json.dumps({"checkpoint": str(checkpoint)}), encoding="utf-8")
            ray.train.report(values, checkpoint=Checkpoint.from_directory(folder))


def train_worker(loop_config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    try:
        _train(cast(RunJob, loop_config))
    except UserError as error:
        if ray.train.get_context().get_world_size() > 1:
            raise  # a report is a barrier, and the other ranks are not at one
        # A person's mistake stays one on the second try: report it instead of failing the worker.
        ray.train.report({"failure": str(error)})


def _train(job: RunJob) -> None:
    began = time.monotonic()
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    config = ExperimentConfig.model_validate_json(job["config_json"])
    # With stored tokens a worker needs no network, nor the seconds that importing transformers takes.
    stored = StoredTokens(job["token_dim"], job["token_grid"], job["encoder_fingerprint"])
    inputs = RunInputs(config, Path(job["root"]), stored if config.data.tokens == "store" else None)
    if inputs.hash != job["hash"]:
        raise UserError(f"{inputs.root}: data or encoder changed since this run was planned; run the command again")
    source = ClipSource(job["config_json"], job["root"], inputs.encoder.fingerprint, rank, num_ranks)
    cpus_per_task = config.resources.cpus_per_data_task

    def batches(start: int) -> Iterator[Batch]:
        return map(inputs.encode, stream_batches(source, start, inputs.total_steps, cpus_per_task))

    training = inputs.training(
        TrainReporter(),
        batches,
        is_main=rank == 0,
        wrap=(lambda module: module) if num_ranks == 1 else _distributed,
        commit=job["commit"],
    )
    setup_s = time.monotonic() - began
    if rank == 0:
        with inputs.folder.lock():
            history = training.run()
            inputs.folder.finish(
                {"hash": inputs.hash, "history": history, "time_s": training.elapsed_s, "setup_s": setup_s}
            )
    else:
        training.run()


def _distributed(module: Any) -> Any:
    return ray.train.torch.prepare_model(
        module, move_to_device=False, parallel_strategy_kwargs={"find_unused_parameters": True}
    )


def run_trial(job: RunJob) -> None:
    """The Tune trainable: fit the run unless it is complete."""
    folder = RunFolder(Path(job["root"]) / "runs" / job["hash"])
    if folder.result() is None:
        config = ExperimentConfig.model_validate_json(job["config_json"])
        resources = config.resources
        per_worker = {"CPU": resources.cpus_per_worker}
        if resources.gpus_per_worker:
            per_worker["GPU"] = resources.gpus_per_worker
        trainer = ray.train.torch.TorchTrainer(
            train_worker,
            train_loop_config=dict(job),
            scaling_config=ray.train.ScalingConfig(
                num_workers=resources.num_workers,
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=per_worker,
            ),
            run_config=ray.train.RunConfig(
                # A name of its own each time: what a run resumes from is its own folder, not Ray's snapshot.
                name=f"{job['hash']}-{os.getpid()}-{int(time.time())}",
                storage_path=str(Path(job["root"]) / "ray" / "train"),
                callbacks=[TuneReportCallback()],
                failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            ),
        )
        trainer.fit()
    if folder.result() is not None:
        tune.report({"complete": True})
