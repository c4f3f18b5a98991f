"""Old runs into MLflow: once, however often they are imported."""

from __future__ import annotations

import re

from experiments.old_runs import OldRun
from experiments.tracking import RunLog, Tracker

_KEY_LIMIT = 250  # characters, MLflow's


def record_run(tracker: Tracker, run: OldRun) -> str:
    """Record what is not there yet; says in words what was."""
    if not run.params and not run.rows:
        return "nothing readable in it"
    existing = tracker.find(run.identity)
    if existing is None:
        log = tracker.open_run(
            run.name,
            run.identity,
            tags={"wm.role": "imported", **run.tags},
            params={tracked_name(key): value for key, value in run.params.items()},
        )
    else:
        log = RunLog(tracker.client, existing)
    fresh = log.rows(
        {"step": step, "metrics": {tracked_name(key): value for key, value in metrics.items()}}
        for step, metrics in sorted(run.rows.items())
    )
    if existing is None:
        log.finish()
        names = {key for metrics in run.rows.values() for key in metrics}
        return f"imported as '{run.name}': {len(run.params)} params, {len(names)} metrics, {len(run.rows)} steps"
    return f"there already as '{run.name}': {fresh} new numbers" if fresh else f"there already as '{run.name}'"


def tracked_name(key: str) -> str:
    """A key that MLflow takes: letters, digits and `_-. :/`, no empty or relative part between slashes."""
    parts = (part for part in re.sub(r"[^\w\-. :/]", "_", key).split("/") if part.strip("."))
    return "/".join(parts)[:_KEY_LIMIT].rstrip("/") or "_"
