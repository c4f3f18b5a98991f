"""Planning with one checkpoint: the same problems and the same numbers as in its experiment.

python -m ray_jobs.plan wm_home/runs/HASH [path=value ...]      (or: wm plan ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.pictures import plan_video
from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.placement import place
from ray_jobs.runtime.planning import PlanTask, outcome_from, solve_all
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trained import open_trained
from wm.build import build_world
from wm.config.hashing import eval_hash
from wm.data.atomic import atomic_file, write_json
from wm.evaluation.outcomes import PlanOutcome, outcome_frames, planning_metrics
from wm.evaluation.problems import load_problems
from wm.evaluation.statistics import wilson
from wm.training.checkpoint import find_checkpoint, read_manifest

CHANGEABLE = ("plan", "evaluate", "resources", "storage", "tracking")


def plan_checkpoint(
    path: Path,
    overrides: Sequence[str],
    out: Path | None,
    narrator: Narrator,
    which: Literal["latest", "best"] = "latest",
) -> dict[int, list[PlanOutcome]]:
    """Plan for every problem of every goal horizon, write outcomes and a video of each, print success with its interval.

    Raises UserError for an override that the checkpoint decides, or when its data are not there.
    """
    checkpoint = find_checkpoint(path, which)
    run = open_trained(checkpoint, overrides, "plan", CHANGEABLE)
    with narrator.step("Read the checkpoint and draw the problems"):
        ensure_problems(run)
        narrator.say(f"{checkpoint}: {run.config.model.variant}, seed {run.config.seed}")
    # Outcomes found on disk are not planned again: the folder must name the checkpoint and everything that decides them.
    manifest = read_manifest(checkpoint)  # an imported checkpoint's name is that of its file, not of its config
    key = eval_hash(run.config, f"{manifest['facts']['train_hash']}/{manifest['step']}")
    target = (out or run.inputs.folder.path / "planning") / key
    tasks: dict[PlanTask, int] = {}
    for horizon in run.config.evaluate.grid.goal_horizons:
        file = problems_file(run, horizon)
        for index, problem in enumerate(load_problems(file)):
            where = target / f"gh{horizon}" / f"{problem.id.replace('/', '_')}.json"
            tasks[PlanTask(str(checkpoint), run.config.model_dump_json(), str(file), index, "none", str(where))] = (
                horizon
            )
    found: dict[PlanTask, dict[str, Any]] = {}
    resources = run.config.resources
    with cluster() as nodes:
        placement = place(resources, nodes, 1)
        with narrator.step(f"Plan, {placement.planning_actors} actors", "problems") as stage:

            def done(task: PlanTask, outcome: dict[str, Any]) -> None:
                found[task] = outcome
                stage.update(len(found), len(tasks), note=f"{sum(o['success'] for o in found.values())} solved")

            solve_all(list(tasks), placement.planning_actors, resources, done)
    return _report(run, tasks, found, target, narrator)


def _report(
    run: Run, tasks: dict[PlanTask, int], found: dict[PlanTask, dict[str, Any]], target: Path, narrator: Narrator
) -> dict[int, list[PlanOutcome]]:
    world = build_world(run.config.plan.world)
    by_horizon: dict[int, list[PlanOutcome]] = {}
    for task, horizon in tasks.items():
        outcome = outcome_from(found[task])
        by_horizon.setdefault(horizon, []).append(outcome)
        if outcome.failure is not None:
            narrator.say(f"{outcome.problem}: failed: {outcome.failure}")
            continue
        problem = load_problems(Path(task.problems))[task.number]
        word = "success" if outcome.success else "failure"
        video = plan_video(outcome_frames(world, problem, outcome.states), problem.frame_g, outcome.success)
        with atomic_file(target / f"gh{horizon}" / f"plan_{task.number}_{word}.mp4") as partial:
            partial.write_bytes(video)
    metrics: dict[str, float] = {}
    for horizon, outcomes in by_horizon.items():
        metrics |= planning_metrics(outcomes, horizon)
        solved = sum(o.success for o in outcomes)
        interval = wilson(solved, len(outcomes))
        narrator.console.print(
            f"goal horizon {horizon}: {solved} of {len(outcomes)} solved ({solved / len(outcomes):.0%}, 95 % Wilson interval "
            f"{interval.low:.0%} to {interval.high:.0%})",
            highlight=False,
            soft_wrap=True,
        )
    write_json(target / "metrics.json", {k: v for k, v in metrics.items() if v == v})
    narrator.console.print(f"Outcomes and videos: {target}", highlight=False, soft_wrap=True)
    return by_horizon


def main() -> None:
    """python -m ray_jobs.plan CHECKPOINT [path=value ...]: as `wm plan`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["plan"]
    cli()


if __name__ == "__main__":
    main()
