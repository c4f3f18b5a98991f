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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, TypedDict, cast

import ray.train
import ray.train.collective
import ray.train.torch
from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from ray_jobs.runtime.stream import ClipSource, stream_batches
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.platform import ResourcesConfig
from wm.data.atomic import FULL
from wm.data.token_files import StoredTokens
from wm.training_run import LOCK_WAIT_S, RunFolder, RunInputs
from wm.types import Batch

# Ray Train takes one report a poll, and a worker waits until the one before is taken: at its own 2 s, 20 steps never take less.
POLL_S = 0.2


class StoredShape(TypedDict):
    """Tokens that a run reads; `size` is that of the pictures, None the encoder's own."""

    size: int | None
    dim: int
    grid: tuple[int, int]
    fingerprint: str


class RunJob(TypedDict):
    """What a trial is given: plain values, so that any process on any node can rebuild the run."""

    config_json: str
    root: str
    hash: str
    commit: str
    tokens: list[StoredShape]


class TrainReporter:
    """The training core's reports as Ray Train's.

    Checkpoints stay in the run's own folder, written atomically by the core; Ray Train is given a pointer to each, since it
    accepts only what lies in its own storage.

    Args:
        number: which of the trial's runs.
        judged: the validation metric that a sweep stops trials on, reported with its epoch; only of the first run.
        stop_file: when it appears, the next report raises Stopped on every rank.
    """

    def __init__(self, number: int = 0, judged: str | None = None, stop_file: str | None = None) -> None:
        self._number, self._judged = number, judged if number == 0 else None
        self._stop_file = None if stop_file is None else Path(stop_file)

    def report(
        self, step: int, metrics: Mapping[str, float], checkpoint: Path | None = None, notes: Sequence[str] = ()
    ) -> None:
        """Every rank must call this equally often: it is a barrier."""
        values: dict[str, Any] = {"run": self._number, "step": step, "metrics": dict(metrics), "notes": list(notes)}
        if self._judged is not None and self._judged in metrics:
            values |= {"epoch": int(metrics["train/epoch"]), "judged": metrics[self._judged]}
        if checkpoint is None:
            ray.train.report(values)
        else:
            with tempfile.TemporaryDirectory() as folder:
                pointer = Path(folder) / "pointer.json"
                pointer.write_text(json.dumps({"checkpoint": str(checkpoint)}), encoding="utf-8")
                ray.train.report(values, checkpoint=Checkpoint.from_directory(folder))
        if self._stop_file is not None and _agreed(self._stop_file.is_file()):
            raise Stopped


class Stopped(Exception):
    """The sweep wants this trial to end here."""


def no_space(error: OSError) -> dict[str, Any]:
    """A report of a full disk: it would fail every other trial too, so it is fatal to a sweep."""
    where = error.filename or "the disk"
    return {"failure": f"{where}: no space left; free some and run the same command", "fatal": True}


def _agreed(mine: bool) -> bool:
    """Rank 0's view: ranks that disagreed would wait for each other."""
    if ray.train.get_context().get_world_size() == 1:
        return mine
    return bool(ray.train.collective.broadcast_from_rank_zero(mine))


class TrainPlan(TypedDict):
    """What one set of workers trains, one run after another.

    Args:
        judged, stop_file: see TrainReporter.
        scratch: where Ray keeps its own books, which nothing is resumed from.
        shared: other trials may train the same run at the same time (they differ in planning only): wait for them.
    """

    jobs: list[RunJob]
    judged: str | None
    stop_file: str | None
    scratch: str
    shared: bool


def train_worker(loop_config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    plan = cast(TrainPlan, loop_config)
    with mistakes_reported(), suppress(Stopped):
        for number, job in enumerate(plan["jobs"]):
            reporter = TrainReporter(number, plan["judged"], plan["stop_file"])
            _train(job, reporter, inf if plan["shared"] else LOCK_WAIT_S)


@contextmanager
def mistakes_reported() -> Iterator[None]:
    """What a second try would not mend is reported instead of failing the worker."""
    try:
        yield
    except UserError as error:
        if ray.train.get_context().get_world_size() > 1:
            raise  # a report is a barrier, and the other ranks are not at one
        ray.train.report({"failure": str(error)})
    except OSError as error:
        if error.errno not in FULL or ray.train.get_context().get_world_size() > 1:
            raise
        ray.train.report(no_space(error))


def _train(job: RunJob, reporter: TrainReporter, lock_wait_s: float) -> None:
    began = time.monotonic()
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    folder = RunFolder(Path(job["root"]) / "runs" / job["hash"])
    with folder.lock(lock_wait_s) if rank == 0 else nullcontext():
        if num_ranks > 1:
            ray.train.collective.barrier()  # nobody reads a checkpoint that another process is about to add to
        report_history(folder, reporter)
        if folder.result() is not None:
            return
        config = ExperimentConfig.model_validate_json(job["config_json"])
        # With stored tokens a worker needs no network, nor the seconds that importing transformers takes.
        stored = _stored(job["tokens"]) if config.data.tokens == "store" else None
        inputs = RunInputs(config, Path(job["root"]), stored)
        if inputs.hash != job["hash"]:
            raise UserError(f"{inputs.root}: data or encoder changed since this run was planned; run the command again")
        source = ClipSource(job["config_json"], job["root"], tuple(inputs.fingerprints.items()), rank, num_ranks)

        def batches(start: int) -> Iterator[Batch]:
            stream = stream_batches(source, start, config.resources.cpus_per_data_task, inputs.clips)
            return map(inputs.encode, stream, count(start))

        training = inputs.training(
            reporter,
            batches,
            is_main=rank == 0,
            wrap=(lambda module: module) if num_ranks == 1 else distributed,
            commit=job["commit"],
        )
        setup_s = time.monotonic() - began
        history = training.run()
        if rank == 0:
            folder.finish({"hash": inputs.hash, "history": history, "time_s": training.elapsed_s, "setup_s": setup_s})


def _stored(shapes: Sequence[StoredShape]) -> StoredTokens:
    of = {shape["size"]: (shape["dim"], shape["grid"], shape["fingerprint"]) for shape in shapes}
    sizes = {size: StoredTokens(*facts) for size, facts in of.items() if size is not None}
    return StoredTokens(*of[None], sizes)


def report_history(folder: RunFolder, reporter: TrainReporter) -> None:
    """Say again what was validated before an interruption: what listens may have died with the driver."""
    for row in folder.history():
        if any(name.startswith("val/") for name in row["metrics"]):
            reporter.report(row["step"], {**row["metrics"], "train/epoch": row["epoch"]})


def distributed(module: Any) -> Any:
    """The module, its gradients averaged over the workers."""
    return ray.train.torch.prepare_model(
        module, move_to_device=False, parallel_strategy_kwargs={"find_unused_parameters": True}
    )


def fit(plan: TrainPlan) -> None:
    """Train the runs of a plan on workers of their own; returns when they end, raises TrainingFailedError when they died too often."""
    first = plan["jobs"][0]
    config = ExperimentConfig.model_validate_json(first["config_json"])
    fit_workers(train_worker, dict(plan), config.resources, config.train.device, first["hash"], plan["scratch"])


def fit_workers(
    worker: Callable[[dict[str, Any]], None],
    loop_config: dict[str, Any],
    resources: ResourcesConfig,
    device: str,
    name: str,
    scratch: str,
) -> None:
    """Run `worker` on Ray Train workers inside a Tune trial, which hears their reports. Raises as `fit`."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))  # this process's goes to the controller
    per_worker = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config=loop_config,
        torch_config=ray.train.torch.TorchConfig(backend="gloo" if device == "cpu" else None),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=ray.train.RunConfig(
            # A name of its own each time: what a run resumes from is its own folder, not Ray's snapshot.
            name=f"{name}-{os.getpid()}-{int(time.time())}",
            storage_path=scratch,
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
        ),
    )
    trainer.fit()


def run_trial(job: RunJob, scratch: str) -> None:
    """The Tune trainable of an experiment: fit the run unless it is complete."""
    folder = RunFolder(Path(job["root"]) / "runs" / job["hash"])
    if folder.result() is None:
        fit({"jobs": [job], "judged": None, "stop_file": None, "scratch": scratch, "shared": False})
    if folder.result() is not None:
        tune.report({"complete": True})
