"""Planning without a simulator: plans on recorded, held-out clips, beside the actions that were recorded. In this process.

python -m ray_jobs.plan wm_home/runs/HASH --offline wall [path=value ...]      (or: wm plan ... --offline ...)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib.figure import Figure
from rich.text import Text

from experiments.figures import to_png
from experiments.offline_figures import draw_clip, draw_summary, summary_frame
from ray_jobs.offline_table import render_offline
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.recorded import Recorded, open_recorded
from ray_jobs.runtime.storage import make_out
from ray_jobs.runtime.trained import beside
from wm.build import load
from wm.build_planning import action_bounds, build_objective, build_planner
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.hashing import eval_hash
from wm.contracts import Planner
from wm.data.atomic import atomic_file, write_json
from wm.evaluation.offline import ClipOutcome, OfflineEvaluation, outcome_from
from wm.evaluation.offline_clips import DrawnClip, check_horizons, draw_clips
from wm.evaluation.offline_metrics import Estimate, offline_metrics
from wm.loaded import LoadedModel
from wm.training.checkpoint import find_checkpoint, read_manifest
from wm.training_run import pick_device

_CLIP_FIGURES = 3  # for each goal horizon


class _Task(NamedTuple):
    clip: DrawnClip
    goal_horizon: int
    file: Path


def plan_offline(
    path: Path,
    dataset: str,
    overrides: Sequence[str],
    out: Path | None,
    narrator: Narrator,
    which: Literal["latest", "best"] = "latest",
) -> dict[str, Any]:
    """Plan along `plan.episodes` recorded clips for every goal horizon, print the table, write offline.json and figures.

    Outcomes found on disk are not planned again; returns what offline.json holds.

    Args:
        dataset: a source of the checkpoint, whose held-out episodes are taken; or a folder with data of the same layout.
        which: of a run folder's checkpoints.

    Raises:
        UserError: for what can be known to be wrong before any work, or when no clip could be planned on.
    """
    checkpoint = find_checkpoint(path, which)
    with narrator.step("Open the checkpoint and the recorded episodes", "episodes encoded") as stage:
        recorded = open_recorded(checkpoint, dataset, overrides)
        config, frameskip = recorded.config, recorded.config.data.clip.frameskip
        horizons = config.evaluate.grid.goal_horizons
        check_horizons(recorded.source, recorded.episodes, horizons, frameskip)
        manifest = read_manifest(checkpoint)
        trained = f"{manifest['facts']['train_hash']}/{manifest['step']}"
        target = (out or beside(checkpoint, "offline")) / eval_hash(
            config, f"{trained}/offline/{recorded.source.fingerprint}"
        )
        make_out(target)
        loaded = load(checkpoint, device=str(pick_device(config.train.device)))
        evaluation = _evaluation(config, loaded)
        for note in [f"{checkpoint}: {config.model.variant}, seed {config.seed}", *recorded.notes]:
            narrator.say(note)
        tasks = [
            _Task(clip, horizon, target / f"gh{horizon}" / f"{clip.id.replace('/', '_')}.json")
            for horizon in horizons
            for clip in draw_clips(
                recorded.source,
                recorded.episodes,
                count=config.plan.episodes,
                goal_horizon=horizon,
                frameskip=frameskip,
                seed=config.plan.seed,
            )
        ]
        for horizon in horizons:
            count = sum(task.goal_horizon == horizon for task in tasks)
            if count < config.plan.episodes:
                narrator.say(f"goal horizon {horizon}: {count} different clips, fewer than plan.episodes")
        recorded.encode([(task.clip, task.goal_horizon) for task in tasks if not task.file.is_file()], stage.update)
    outcomes: dict[int, list[ClipOutcome]] = {horizon: [] for horizon in horizons}
    with narrator.step("Plan along the record", "clips") as stage:
        for number, task in enumerate(tasks, start=1):
            outcomes[task.goal_horizon].append(_solved(task, recorded, evaluation))
            stage.update(number, len(tasks))
    return _report(checkpoint, recorded, outcomes, target, narrator)


def _evaluation(config: ExperimentConfig, loaded: LoadedModel) -> OfflineEvaluation:
    """Planner and objective as online, but for the plan's length: the steps that are left to the goal."""
    plan, model = config.plan, loaded.model
    loaded = loaded.planned_by(plan)
    bounds = action_bounds(plan, loaded)

    def planner(horizon: int) -> Planner:
        settings = plan.planner.model_copy(update={"horizon": horizon})
        return build_planner(settings, loaded, memory_gb=config.resources.planning_memory_gb, bounds=bounds)

    return OfflineEvaluation(
        loaded.dynamics,
        build_objective(plan.objective, model),
        planner,
        loaded.env_actions,
        history_len=model.history_len,
        visual=model.visual,
        # As online: a gradient planner looks after every step, the others after plan.planner.horizon.
        execute_steps=plan.steps_executed or plan.planner.horizon,
        seed=plan.seed,
    )


def _solved(task: _Task, recorded: Recorded, evaluation: OfflineEvaluation) -> ClipOutcome:
    """From disk, or planned now and written; what failed is not written, so that the same command tries it again."""
    if task.file.is_file():
        return outcome_from(json.loads(task.file.read_text(encoding="utf-8")))
    outcome = evaluation.solve(recorded.read(task.clip, task.goal_horizon))
    if outcome.failure is None:
        write_json(task.file, dataclasses.asdict(outcome))
    return outcome


def _report(
    checkpoint: Path,
    recorded: Recorded,
    outcomes: Mapping[int, Sequence[ClipOutcome]],
    target: Path,
    narrator: Narrator,
) -> dict[str, Any]:
    frameskip, statistics = recorded.config.data.clip.frameskip, recorded.action
    names = recorded.reader.statistics.action_names
    failed = [outcome for group in outcomes.values() for outcome in group if outcome.failure is not None]
    for outcome in failed:
        narrator.say(f"{outcome.clip}: failed: {outcome.failure}")
    done = {
        horizon: [each for each in group if each.failure is None]
        for horizon, group in outcomes.items()
        if any(each.failure is None for each in group)
    }
    if not done:
        raise UserError(f"no clip could be planned on; the first: {failed[0].failure}")
    metrics: dict[str, Estimate] = {}
    for horizon, group in outcomes.items():
        metrics |= offline_metrics(group, statistics, names, goal_horizon=horizon, frameskip=frameskip)
    counts = {
        horizon: {"clips": len(group), "episodes": len({each.episode for each in group})}
        for horizon, group in done.items()
    }
    with narrator.step("Draw"):
        figures = {"offline_summary.png": draw_summary(summary_frame(done, metrics, statistics, frameskip))}
        for horizon, group in done.items():
            for number, outcome in enumerate(group[:_CLIP_FIGURES]):
                figures[f"offline_gh{horizon}_clip_{number}.png"] = draw_clip(outcome, names, frameskip)
        for name, figure in figures.items():
            _write(target / name, figure)
    words = {
        horizon: f"{count['clips']} clips of {count['episodes']} episodes of {recorded.source.name}"
        for horizon, count in counts.items()
    }
    for renderable in render_offline(metrics, list(done), names, words):
        narrator.console.print(renderable, soft_wrap=isinstance(renderable, Text))
    manifest = read_manifest(checkpoint)
    found: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "step": manifest["step"],
        "variant": recorded.config.model.variant,
        "train_hash": manifest["facts"]["train_hash"],
        "source": recorded.source.name,
        "source_fingerprint": recorded.source.fingerprint,
        "plan": recorded.config.plan.model_dump(mode="json", exclude={"world", "max_iterations", "problems"}),
        "counts": {f"gh{horizon}": count for horizon, count in counts.items()},
        "metrics": {name: estimate.value for name, estimate in metrics.items()},
        "intervals": {
            name: [estimate.interval.low, estimate.interval.high]
            for name, estimate in metrics.items()
            if estimate.interval is not None
        },
        "interval_method": next(
            (e.interval.method for e in metrics.values() if e.interval is not None), "none: one episode"
        ),
        "notes": recorded.notes,
    }
    write_json(target / "offline.json", found)
    narrator.console.print(f"{target}: offline.json, {', '.join(figures)}", highlight=False, soft_wrap=True)
    return found


def _write(file: Path, figure: Figure) -> None:
    with atomic_file(file) as partial:
        partial.write_bytes(to_png(figure))
