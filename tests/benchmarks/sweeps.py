"""What a sweep costs besides the work: a trial's start, the records, the memory of what watches it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

import ray_jobs  # noqa: F401 - it sets what Ray reads when it is first imported, below
from tests.benchmarks.row import Row

_SETTINGS = (
    *(
        "train.epochs=2",
        "train.steps_per_epoch=60",
        "train.batch_size=8",
        "evaluate.horizons=[1,5]",
        "evaluate.clips=16",
    ),
    *("evaluate.probe_clips=32", "plan.episodes=4", "plan.max_iterations=1"),
    *("sweep.fresh_seeds=0", "sweep.pruning.kind=none"),
)
TRIALS, COMPUTE_S = 16, 120.0  # the sweep that the model speaks of


@contextmanager
def wall_home() -> Iterator[Path]:
    from ray_jobs.make_data import make_wall

    with tempfile.TemporaryDirectory() as folder:
        make_wall(Path(folder) / "data" / "wall", episodes=40, steps=60, frame_size=84)
        yield Path(folder)


def _swept(root: Path, *settings: str) -> Any:
    from ray_jobs.runtime.progress import Narrator
    from ray_jobs.runtime.searched import open_sweep
    from ray_jobs.sweep import run_sweep

    arguments = [*_SETTINGS, *settings, f"storage.root={root}"]
    searched = open_sweep("align_vs_align_recon", "alignment", arguments)
    return searched, run_sweep(searched, Narrator(Console(quiet=True))).record


def _work_s(searched: Any, trial: Any) -> float:
    """Seconds in which a trial trained and planned."""
    from experiments.study import Proposal

    total = 0.0
    for run in searched.runs(Proposal(trial.number, trial.params)):
        total += float(run.inputs.folder.result()["time_s"])
        outcomes = [json.loads(file.read_text()) for file in run.inputs.folder.path.glob("planning/*/*/*.json")]
        total += sum(sum(outcome["plan_s"]) for outcome in outcomes)
    return total


def trial_start() -> list[Row]:
    """A trial less its work, against TorchTrainer.fit of a function that reports once."""

    import ray.train.torch

    from ray_jobs.runtime.cluster import cluster

    def loop(config: dict[str, Any]) -> None:
        import torch

        ray.train.report({"threads": torch.get_num_threads()})

    def bare(root: Path) -> float:
        began = time.monotonic()
        ray.train.torch.TorchTrainer(
            loop,
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.75}),
            run_config=ray.train.RunConfig(name=f"bare-{time.time()}", storage_path=str(root / "bare")),
        ).fit()
        return time.monotonic() - began

    with wall_home() as root, cluster() as nodes:
        bare(root)  # warms the disk's cache
        bares = [bare(root), bare(root)]
        searched, record = _swept(root, "sweep.num_trials=4", "resources.runs_at_once=1")
        bares.append(bare(root))
        start_s = sum(t.seconds - _work_s(searched, t) for t in record.trials[1:]) / (len(record.trials) - 1)
        bare_s = sum(bares) / len(bares)
        slots = min(2, int(nodes[0].cpus))
        began = time.monotonic()
        searched, record = _swept(
            root, f"sweep.num_trials={3 * slots}", f"resources.runs_at_once={slots}", "sweep.seed=1"
        )
        wall_s = time.monotonic() - began
        lost_s = sum(t.seconds - _work_s(searched, t) for t in record.trials) / len(record.trials)
        once_s = wall_s - sum(t.seconds for t in record.trials) / slots
    ideal_s = TRIALS * COMPUTE_S / slots
    model_s = once_s + TRIALS * (COMPUTE_S + lost_s) / slots
    return [
        Row("a trial less its training and planning, one at a time", "TorchTrainer.fit", bare_s, "a trial", start_s),
        Row(
            f"model: {TRIALS} trials of {COMPUTE_S:g} s, {slots} at once; measured {lost_s:.1f} s a trial and {once_s:.1f} s once",
            "compute / slots",
            ideal_s,
            "the sweep",
            model_s,
        ),
    ]


def mlflow_rows() -> list[Row]:
    """Recording a row of metrics every 20 steps, against the steps."""
    from experiments.tracking import Tracker
    from wm.config.platform import TrackingConfig

    with wall_home() as root:
        log = Tracker(TrackingConfig(), root, "bench").open_run("run", "run")
        metrics = {f"train/metric_{number}": 0.5 for number in range(8)}
        log.rows([{"step": 0, "metrics": metrics}])
        began = time.monotonic()
        for row in range(1, 51):
            log.rows([{"step": 20 * row, "metrics": metrics}])
        row_s = (time.monotonic() - began) / 50

        from experiments.spec import load_spec
        from wm.training.reporter import NullReporter
        from wm.training_run import RunInputs

        given = [f"storage.root={root}", "train.epochs=1", "train.steps_per_epoch=40", "data.tokens=online"]
        spec, overrides = load_spec("align_vs_align_recon", given)
        plan = next(plan for plan in spec.resolve_runs(overrides) if plan.run == "align_recon")
        inputs = RunInputs(plan.config, root)
        batches = [next(iter(inputs.local_batches(step))) for step in range(4)]
        training = inputs.training(NullReporter(), lambda start: (batches[s % 4] for s in range(start, 40)))
        training.folder, training.validate = None, None
        training.run()
        steps_s = training.elapsed_s / 40 * 20
    return [Row("MLflow, a row of 8 metrics for 20 steps (in another process)", "20 steps", steps_s, "a row", row_s)]


def control_plane_memory() -> list[Row]:
    """Memory of the driver and of Ray's own processes after 0, 10 and 100 finished trials that do nothing."""

    from ray import tune

    from experiments.search_space import check_space, load_space
    from experiments.spec import load_spec
    from experiments.study import Study
    from experiments.tracking import Tracker
    from ray_jobs.runtime.cluster import cluster
    from ray_jobs.runtime.search import StudySearch, SweepWatcher
    from wm.config.platform import TrackingConfig

    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    seen: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, cluster():
        root = Path(folder)
        space = load_space("alignment")
        base = check_space(space, load_spec("align_vs_align_recon")[0])
        study = Study(f"sqlite:///{root / 'optuna.db'}", "bench", space, base, space.sweep)
        tracker = Tracker(TrackingConfig(), root, "bench")
        parent = tracker.open_run("sweep", "sweep")

        class Listener:
            def propose(self) -> int | None:
                finished = study.num_finished
                if finished in (0, 10, 100):
                    seen[finished] = _control_bytes()
                return None if finished >= 100 else study.propose().number

            def completed(self, number: int, final: Any, values: list[float], seconds: float) -> None:
                log = tracker.open_run(f"trial_{number}", str(number), parent=parent.run_id)
                log.rows([{"step": 0, "metrics": {"objective": values[0]}}])
                log.finish()
                study.complete(number, {0: values[0]}, seconds)

            def __getattr__(self, name: str) -> Any:
                return lambda *given, **named: None

        def trainable(config: dict[str, Any]) -> None:
            tune.report({"final": [{"objective": float(config["number"] % 7)}]})

        listener: Any = Listener()
        tune.Tuner(
            tune.with_resources(trainable, {"CPU": 0.5}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearch(listener.propose), num_samples=-1, max_concurrent_trials=1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="bench", storage_path=str(root), callbacks=[SweepWatcher("objective", listener)], verbose=0
            ),
        ).fit()
        seen.setdefault(100, _control_bytes())
    mib = {count: found / 2**20 for count, found in seen.items()}
    return [
        Row("memory of driver, GCS, raylet and dashboard", "0 trials", mib[0], f"{count} trials", mib[count], "MiB")
        for count in (10, 100)
    ]


def _control_bytes() -> float:
    """Proportional set size of this process and of Ray's own, without workers."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if process.pid == os.getpid() or not process.name().startswith(("ray::ImplicitFunc", "ray::IDLE")):
                total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
