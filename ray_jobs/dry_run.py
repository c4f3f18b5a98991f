"""`wm sweep --dry-run`: what a sweep would do, on what, for how long; no cluster is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.metric_text import count
from experiments.study import Study
from experiments.sweep_config import AshaPruning
from ray_jobs.runtime.cluster import is_named, local_node
from ray_jobs.runtime.placement import Placement, place
from ray_jobs.runtime.probe import Timings, probe
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.progress import format_s
from ray_jobs.runtime.searched import Searched
from wm.config.errors import UserError
from wm.data.atomic import write_json

SHOWN = 5
# What Ray itself takes, in units of a fresh process's imports, as measured on two cores: a cluster, and the start of a trial's
# processes, which keep two cores busy.
CLUSTER_IMPORTS, TRIAL_IMPORTS, STARTING_CPUS = 3.0, 8.0, 2.0
_TOKEN_BYTES = 2


@dataclass(frozen=True)
class Estimate:
    """Of a whole sweep, from timings of its parts.

    Args:
        trial_s: one that is not stopped early.
        longest_s: if none is stopped early; seconds: as many are stopped as ASHA stops of values in random order.
    """

    trial_s: float
    seconds: float
    longest_s: float
    confirmation_s: float
    disk_bytes: float


def dry_run(searched: Searched, console: Console) -> Estimate:
    """Print and keep the estimate. Raises UserError when the disk is too small or the machine cannot hold one trial."""
    config, sweep = searched.base.config, searched.space.sweep
    if is_named():
        raise UserError("--dry-run times this machine; unset RAY_ADDRESS, or run it on a node of the cluster")
    exists = (searched.root / "optuna.db").is_file() and searched.name in Study.names(searched.study_url)
    study = searched.study(in_memory=not exists)
    finished = study.num_finished
    left = max(0, sweep.num_trials - finished)
    placement = place(config.resources, [local_node()], max(left, 1))
    planned = searched.objective.startswith("plan/")

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    say(f"sweep {searched.name}")
    say(
        f"  trials     {sweep.num_trials}, {finished} finished, {left} to run; {count(sweep.num_seeds, 'training seed')} each"
    )
    say(f"  objective  {searched.objective} ({searched.mode}); {_stops(searched)}")
    actors = f"; then {placement.planning_actors_per_run} planning actors" if planned else ""
    gpus = f" and {placement.gpus_per_run:g} GPUs" if placement.gpus_per_run else ""
    say(f"  resources  a trial: {placement.cpus_per_run:.2f} CPUs{gpus} while it trains{actors}")
    say(
        f"  at once    {min(placement.runs_at_once, max(left, 1))} trials on {local_node().cpus:g} CPUs, {local_node().gpus:g} GPUs"
    )
    problems: Path | None = None
    if planned:
        ensure_problems(searched.base)
        problems = problems_file(searched.base, config.evaluate.grid.goal_horizons[0])
    say(f"  timing the parts, {placement.runs_at_once} side by side ...")
    try:
        timings = probe(config.model_dump_json(), problems, placement.runs_at_once)
    except RuntimeError as error:
        raise UserError(f"the timed probe failed: {error}") from error
    estimate = estimate_sweep(searched, placement, timings, left, local_node().cpus)
    say(
        f"  measured   {1000 * timings.step_s:.0f} ms a step, {timings.validate_s:.1f} s a validation, "
        f"{timings.problem_s:.1f} s a planning problem, {timings.import_s:.1f} s to start a process"
    )
    say(f"  a trial    {format_s(estimate.trial_s)} when it is not stopped")
    stopped = (
        "" if estimate.seconds == estimate.longest_s else f"; {format_s(estimate.longest_s)} if none is stopped early"
    )
    say(f"  time       about {format_s(estimate.seconds)}{stopped}")
    if estimate.confirmation_s:
        say(f"             of it {format_s(estimate.confirmation_s)} to run the best and the default again")
    free = shutil.disk_usage(searched.root).free
    say(f"  disk       {_size(estimate.disk_bytes)} more under {searched.root}, {_size(free)} free")
    write_json(searched.folder / "estimate.json", {"trials": left, "seconds": estimate.seconds})
    if estimate.disk_bytes > free:
        raise UserError(f"{searched.root}: {_size(estimate.disk_bytes)} needed, {_size(free)} free")
    proposals = study.preview(min(SHOWN, left))
    say(f"first {len(proposals)} trials" if proposals else "nothing is left to run")
    for proposal in proposals:
        guess = (
            "" if proposal.number < sweep.num_startup_trials else "  (before anything is known; results will move it)"
        )
        values = ", ".join(f"{path}={_short(value)}" for path, value in proposal.params.items())
        say(f"  {proposal.number}: {values}{guess}")
    return estimate


def estimate_sweep(searched: Searched, placement: Placement, timings: Timings, left: int, cpus: float) -> Estimate:
    """Seconds and bytes of `left` trials on `cpus`, and of what comes before and after them."""
    config, sweep = searched.base.config, searched.space.sweep
    epochs, steps = config.train.epochs, searched.base.inputs.total_steps
    num_problems = config.plan.episodes * len(config.evaluate.grid.goal_horizons)
    validations = -(-epochs // config.train.validate_every_epochs)
    at_once = min(placement.runs_at_once, max(left, 1))
    crowded = max(1.0, STARTING_CPUS * at_once / cpus)
    start_s = TRIAL_IMPORTS * timings.import_s * crowded
    train_s = timings.setup_s + steps * timings.step_s + validations * timings.validate_s
    problem_s = timings.problem_s if searched.objective.startswith("plan/") else 0.0
    plan_s = (
        timings.import_s if problem_s else 0.0
    ) + sweep.num_seeds * num_problems * problem_s / placement.planning_actors_per_run
    trial_s = start_s + sweep.num_seeds * train_s + plan_s
    inputs = searched.base.inputs
    missing = inputs.missing_tokens()
    frames = sum(tokens.num_frames for tokens in missing)
    encode_s = timings.import_s * (frames > 0) + frames * timings.encode_frame_s / max(1, placement.planning_actors)
    before_s = timings.import_s * (1 + CLUSTER_IMPORTS) + encode_s
    confirmed = 2 * sweep.fresh_seeds
    together = max(1, min(placement.runs_at_once, confirmed))
    confirmation_s = (
        confirmed * (start_s + train_s) / together
        + (timings.import_s if problem_s else 0.0)
        + (confirmed + 1) * num_problems * problem_s / placement.planning_actors
        if confirmed
        else 0.0
    )
    share, ends = _expected(searched, left)
    typical_s = start_s + share * train_s + ends * ((sweep.num_seeds - 1) * train_s + plan_s)
    grids = {size: encoder.grid for size, encoder in inputs.encoders.items()}
    values = sum(tokens.num_frames * prod(grids[tokens.size]) for tokens in missing) * inputs.encoder.dim
    token_bytes = values * _TOKEN_BYTES
    runs = left * sweep.num_seeds + confirmed
    return Estimate(
        trial_s=trial_s,
        seconds=before_s + left * typical_s / at_once + confirmation_s,
        longest_s=before_s + left * trial_s / at_once + confirmation_s,
        confirmation_s=confirmation_s,
        disk_bytes=token_bytes + (runs * config.train.keep_checkpoints + confirmed) * timings.checkpoint_bytes,
    )


def _expected(searched: Searched, trials: int, draws: int = 200) -> tuple[float, float]:
    """(mean share of a run's epochs, mean share of trials that end) when ASHA sees values in random order, one by one."""
    pruning, epochs = searched.space.sweep.pruning, searched.base.config.train.epochs
    if not isinstance(pruning, AshaPruning) or searched.prune_on is None or trials == 0:
        return 1.0, 1.0
    rungs: list[int] = []
    rung = pruning.grace_epochs
    while rung < epochs:
        rungs.append(rung)
        rung *= pruning.reduction_factor
    generator = np.random.default_rng(0)
    shares: list[float] = []
    ended: list[float] = []
    for _ in range(draws):
        seen: list[list[float]] = [[] for _ in rungs]
        for value in generator.random(trials):
            reached = epochs
            for rung, values in zip(rungs, seen, strict=True):
                stop = bool(values) and value < np.percentile(values, 100 * (1 - 1 / pruning.reduction_factor))
                values.append(value)
                if stop:
                    reached = rung
                    break
            shares.append(reached / epochs)
            ended.append(float(reached == epochs))
    return float(np.mean(shares)), float(np.mean(ended))


def _stops(searched: Searched) -> str:
    pruning = searched.space.sweep.pruning
    if not isinstance(pruning, AshaPruning) or searched.prune_on is None:
        return "no trial is stopped early"
    return (
        f"after epoch {pruning.grace_epochs} x {pruning.reduction_factor}^k the best 1/{pruning.reduction_factor} by "
        f"{searched.prune_on} go on"
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
