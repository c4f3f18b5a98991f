"""From MLflow back to records: what `wm compare` reads, and what a finished experiment is reported from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.records import COMPLETE, ExperimentRecord, RunRecord
from experiments.tracking import PARENT, Tracker
from wm.config.errors import UserError, nearest

PLAN_LOG = "planning/plan_log.json"
CONFIG = "config.json"
PICTURES = {"rollout_strip": "pictures/rollout_strip.png", "plan_video": "pictures/plan_video.mp4"}
_STATUS = {"FINISHED": COMPLETE, "FAILED": "failed", "KILLED": "stopped", "RUNNING": "running", "SCHEDULED": "waiting"}


def read_record(tracker: Tracker, parent: str | None = None) -> ExperimentRecord:
    """A parent run with its children; the newest parent when none is named.

    Raises UserError when the experiment has no such parent.
    """
    client = tracker.client
    found = client.search_runs([tracker.experiment_id], "tags.`wm.role` = 'experiment'", order_by=["start_time DESC"])
    chosen = [run for run in found if parent in (None, run.info.run_id, run.info.run_name)]
    if not chosen:
        names = [str(run.info.run_name) for run in found]
        raise UserError(
            f"{tracker.experiment}: no experiment run '{parent or ''}' recorded.{nearest(str(parent), names)}"
        )
    head = chosen[0]
    tags = head.data.tags
    children = client.search_runs(
        [tracker.experiment_id], f"tags.`{PARENT}` = '{head.info.run_id}'", order_by=["attributes.run_name ASC"]
    )
    runs = [_run_record(client, child) for child in children]
    runs.sort(key=lambda run: (run.case, json.loads(tags["wm.runs"]).index(run.variant), run.seed))
    return ExperimentRecord(
        name=str(head.info.run_name),
        question=tags["wm.question"],
        reference=tags["wm.reference"],
        compare=json.loads(tags["wm.compare"]),
        metric=tags["wm.metric"],
        mode=tags["wm.mode"],
        runs=runs,
        controls=json.loads(tags.get("wm.controls", "{}")),
        facts={key.removeprefix("fact."): value for key, value in tags.items() if key.startswith("fact.")},
    )


def _run_record(client: Any, run: Any) -> RunRecord:
    tags = run.data.tags
    run_id = run.info.run_id
    history = {
        key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
        for key in run.data.metrics
        if key.startswith(("train/", "val/"))
    }
    folder = _local(run.info.artifact_uri) or Path(client.download_artifacts(run_id, ""))
    plan_log = _json(folder / PLAN_LOG)
    successes = {
        f"plan/success_rate_gh{horizon}": [int(outcome["success"]) for outcome in outcomes]
        for horizon, outcomes in plan_log.items()
    }
    distances = {
        f"plan/state_distance_gh{horizon}": [float(outcome["state_distance"]) for outcome in outcomes]
        for horizon, outcomes in plan_log.items()
        if all(outcome["failure"] is None for outcome in outcomes)
    }
    return RunRecord(
        run_id=run_id,
        variant=tags["variant"],
        case=tags["case"],
        seed=int(tags["seed"]),
        status=_STATUS.get(run.info.status, str(run.info.status).lower()),
        failure=tags.get("failure"),
        warning=tags.get("warning") or None,
        metrics=dict(run.data.metrics),
        history=history,
        successes=successes,
        distances=distances,
        config=_json(folder / CONFIG),
        pictures={name: str(folder / file) for name, file in PICTURES.items() if (folder / file).is_file()},
    )


def _local(uri: str) -> Path | None:
    """The folder behind a file: URI; None for artifacts that must be downloaded."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return Path(uri) if uri.startswith("/") else None


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
