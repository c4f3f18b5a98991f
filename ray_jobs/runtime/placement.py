"""The arithmetic before Ray starts: what fits at once, and a refusal with both numbers for what never can.

A trial driver, its workers, their reading tasks and its planning actors must all find logical CPUs, or Ray waits for ever
without a word. What a run needs while it plans never exceeds its share of the node, so nobody waits for what another holds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wm.config.errors import UserError
from wm.config.platform import ResourcesConfig

DRIVER_CPUS = 0.01  # Tune refuses 0
_EPS = 1e-9


class Node(NamedTuple):
    """Logical resources of one machine."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Placement:
    """How many of what run side by side.

    Args:
        planning_actors: when nothing trains.
        planning_actors_per_run: of each of `runs_at_once` trials that train and plan.
    """

    runs_at_once: int
    planning_actors: int
    planning_actors_per_run: int
    cpus_per_run: float
    gpus_per_run: float


def place(resources: ResourcesConfig, nodes: Sequence[Node], num_runs: int) -> Placement:
    """Fit runs and planning actors into the nodes. Raises UserError when not even one run fits."""
    workers = resources.num_workers
    per_worker = Node(DRIVER_CPUS + resources.cpus_per_worker + resources.cpus_per_data_task, resources.gpus_per_worker)
    per_run = DRIVER_CPUS + workers * (per_worker.cpus - DRIVER_CPUS)
    gpus_per_run = workers * resources.gpus_per_worker
    actor = Node(resources.cpus_per_planning_actor, resources.gpus_per_planning_actor)
    if resources.autoscaling:
        runs = min(resources.runs_at_once or 1, max(num_runs, 1))
        actors = resources.planning_actors or runs
        return Placement(runs, actors, max(1, actors // runs), per_run, gpus_per_run)
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    where = f"{cpus:g} CPUs and {gpus:g} GPUs" + (f" on {len(nodes)} nodes" if len(nodes) > 1 else "")
    fits = _slots(nodes, per_worker) // workers
    if fits == 0:
        raise UserError(
            f"resources: one run needs {per_run:.2f} CPUs ({workers} workers x ({resources.cpus_per_worker:g} + "
            f"{resources.cpus_per_data_task:g} for reading) + {DRIVER_CPUS:g} for its driver) and {gpus_per_run:g} GPUs, but "
            f"there are {where}; lower resources.num_workers, resources.cpus_per_worker or resources.gpus_per_worker"
        )
    wanted = resources.runs_at_once
    if wanted is not None and wanted > fits:
        raise UserError(
            f"resources.runs_at_once: {wanted} runs need {wanted * per_run:.2f} CPUs and {wanted * gpus_per_run:g} GPUs, but there "
            f"are {where}: at most {fits}"
        )
    runs = min(wanted or fits, max(num_runs, 1))
    # Each run keeps its driver; on a node of its own the rest is for actors.
    slots = _slots([Node(node.cpus - DRIVER_CPUS * runs, node.gpus) for node in nodes], actor)
    while runs > 1 and slots < runs:
        runs -= 1
        slots = _slots([Node(node.cpus - DRIVER_CPUS * runs, node.gpus) for node in nodes], actor)
    actors = resources.planning_actors
    if slots == 0 or (actors is not None and actors > slots):
        count = actors or 1
        raise UserError(
            f"resources.planning_actors: {count} x ({actor.cpus:g} CPUs and {actor.gpus:g} GPUs) beside the drivers of {runs} runs, "
            f"but there are {where}; lower it, or resources.cpus_per_planning_actor and gpus_per_planning_actor"
        )
    total = actors or min(slots, max(1, int(cpus)))
    return Placement(runs, total, max(1, min(total, slots) // runs), per_run, gpus_per_run)


def _slots(nodes: Sequence[Node], each: Node) -> int:
    """How many of `each` fit, none across two nodes."""
    found = 0
    for node in nodes:
        fits = int(node.cpus / each.cpus + _EPS) if each.cpus else 0
        found += max(0, min(fits, int(node.gpus / each.gpus + _EPS)) if each.gpus else fits)
    return found


def machine_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def machine_gpus() -> int:
    """NVIDIA cards that Ray would find here: those in CUDA_VISIBLE_DEVICES, else all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([card for card in visible.split(",") if card.strip() not in ("", "-1", "NoDevFiles")])
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
