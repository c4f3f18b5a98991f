"""The training of an encoder under Ray: as ray_jobs/runtime/trial.py has it for a run, but for what is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypedDict, cast

import ray.train
import ray.train.collective
from ray import tune

from ray_jobs.runtime.judging import build_judge
from ray_jobs.runtime.stream import ClipSource, stream_batches
from ray_jobs.runtime.trial import TrainReporter, distributed, fit_workers, mistakes_reported, report_history
from wm.config.errors import UserError
from wm.config.pretrain import PretrainConfig
from wm.pretraining_run import PretrainInputs, encoder_folder
from wm.types import Batch


class PretrainJob(TypedDict):
    """What a trial is given: plain values, so that any process on any node can rebuild the training."""

    config_json: str
    root: str
    hash: str
    commit: str


def pretrain_trial(job: PretrainJob, scratch: str) -> None:
    """The Tune trainable: train unless that is done."""
    folder = encoder_folder(Path(job["root"]), job["hash"])
    if folder.result() is None:
        config = PretrainConfig.model_validate_json(job["config_json"])
        fit_workers(pretrain_worker, dict(job), config.resources, config.train.device, job["hash"], scratch)
    if folder.result() is not None:
        tune.report({"complete": True})


def pretrain_worker(loop_config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    with mistakes_reported():
        _train(cast(PretrainJob, loop_config))


def _train(job: PretrainJob) -> None:
    began = time.monotonic()
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    folder, reporter = encoder_folder(Path(job["root"]), job["hash"]), TrainReporter()
    with folder.lock() if rank == 0 else nullcontext():
        if num_ranks > 1:
            ray.train.collective.barrier()  # nobody reads a checkpoint that another process is about to add to
        report_history(folder, reporter)
        if folder.result() is not None:
            return
        config = PretrainConfig.model_validate_json(job["config_json"])
        inputs = PretrainInputs(config, Path(job["root"]))
        if inputs.hash != job["hash"]:
            raise UserError(f"{inputs.root}: data changed since this training was planned; run the command again")
        source = ClipSource(config.as_experiment.model_dump_json(), job["root"], ((None, ""),), rank, num_ranks)

        def batches(start: int) -> Iterator[Batch]:
            return stream_batches(source, start, config.resources.cpus_per_data_task, inputs.clips)

        training = inputs.training(
            reporter,
            batches,
            judge=build_judge(config, inputs.dataset) if rank == 0 else None,
            is_main=rank == 0,
            wrap=(lambda module: module) if num_ranks == 1 else distributed,
            commit=job["commit"],
        )
        setup_s = time.monotonic() - began
        history = training.run()
        if rank == 0:
            folder.finish({"hash": inputs.hash, "history": history, "time_s": training.elapsed_s, "setup_s": setup_s})
