"""Recorded episodes of each world: one process against two. `wm bench worlds` has the absolute figures."""

from __future__ import annotations

from ray_jobs.bench_worlds import EPISODE_STEPS, MEASURABLE, measure, pace
from ray_jobs.runtime.cluster import cluster
from tests.benchmarks.row import Row

SECONDS = 5.0


def worlds() -> list[Row]:
    """Seconds an episode of 50 steps at 224 x 224."""
    rows = []
    with cluster(cpus=2, gpus=0):
        for name in MEASURABLE:
            one, speed = pace(name, SECONDS, 1), measure(name, SECONDS)
            title = f"{name}: {speed.steps_s:.0f} steps/s, {speed.frames_s:.0f} frames/s; an episode of {EPISODE_STEPS}"
            rows.append(Row(title, "one process", 1 / one, "two", 60 / speed.episodes_min))
    return rows
