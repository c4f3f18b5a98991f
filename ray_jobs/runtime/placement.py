"""The arithmetic before Ray starts: what fits at once, and a refusal with both numbers for what never can.

A trial driver, its workers and its reading tasks must all find logical CPUs, or Ray waits for ever without a word.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from wm.config.errors import UserError
from wm.config.platform import ResourcesConfig

DRIVER_CPUS = 0.01  # Tune refuses 0


@dataclass(frozen=True)
class Placement:
    """How many of what run side by side."""

    runs_at_once: int
    planning_actors: int
    cpus_per_run: float


def place(resources: ResourcesConfig, cpus: float, gpus: float, num_runs: int) -> Placement:
    """Fit runs and planning actors into a machine or cluster. Raises UserError when not even one run fits."""
    workers = resources.num_workers
    per_run = DRIVER_CPUS + workers * (resources.cpus_per_worker + resources.cpus_per_data_task)
    gpus_per_run = workers * resources.gpus_per_worker
    if per_run > cpus:
        raise UserError(
            f"resources: one run needs {per_run:.2f} CPUs ({workers} workers x ({resources.cpus_per_worker:g} + "
            f"{resources.cpus_per_data_task:g} for reading) + {DRIVER_CPUS:g} for its driver), but there are {cpus:g}; lower "
            f"resources.num_workers or resources.cpus_per_worker"
        )
    if gpus_per_run > gpus:
        raise UserError(
            f"resources.gpus_per_worker: one run needs {gpus_per_run:g} GPUs, but there are {gpus:g}; "
            f"say resources.gpus_per_worker=0"
        )
    fits = int(cpus / per_run + 1e-9)
    if gpus_per_run:
        fits = min(fits, int(gpus / gpus_per_run + 1e-9))
    wanted = resources.runs_at_once
    if wanted is not None and wanted > fits:
        raise UserError(
            f"resources.runs_at_once: {wanted} runs need {wanted * per_run:.2f} CPUs and {wanted * gpus_per_run:g} GPUs, but there "
            f"are {cpus:g} and {gpus:g}: at most {fits}"
        )
    actors = resources.planning_actors or max(1, int(cpus))
    if actors > cpus:
        raise UserError(f"resources.planning_actors: {actors} actors need {actors} CPUs, but there are {cpus:g}")
    return Placement(min(wanted or fits, max(num_runs, 1)), actors, per_run)


def machine_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0))
