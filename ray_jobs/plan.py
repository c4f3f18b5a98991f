"""Planning with checkpoints in simulation: the same problems and the same numbers as in their experiment.

python -m ray_jobs.plan wm_home/runs/HASH [more checkpoints] [path=value ...]      (or: wm plan ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from experiments.plan_record import CONTROLS, Planned
from ray_jobs.plan_report import Solved, report
from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.placement import place
from ray_jobs.runtime.planning import Control, PlanTask, outcome_from, solve_all
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.storage import make_out
from ray_jobs.runtime.trained import beside, open_trained
from wm.config.errors import UserError
from wm.config.hashing import eval_hash
from wm.config.plan import PlannerConfig
from wm.config.yaml import parse_override
from wm.evaluation.problems import load_problems
from wm.training.checkpoint import find_checkpoint, read_manifest

CHANGEABLE = ("plan", "evaluate", "resources", "storage", "tracking")
_PLANNER = "plan.planner."


@dataclass(frozen=True)
class _Job:
    """One checkpoint and planner, or a control."""

    run: Run
    checkpoint: Path
    label: str
    control: Control
    target: Path


def plan_checkpoints(
    paths: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    narrator: Narrator,
    *,
    planners: Sequence[str] = (),
    videos: int = 10,
    which: Literal["latest", "best"] = "latest",
) -> list[Planned]:
    """Plan for every problem of every goal horizon with every checkpoint and planner, and as random and recorded actions do.

    Writes outcomes as they come, then videos, figures, logs.json and an MLflow run a checkpoint, and prints success with intervals.

    Args:
        videos: of each checkpoint and goal horizon.
        planners: kinds, crossed with the checkpoints; none: the checkpoints' own. `plan.planner.*` holds for those that have it.

    Raises UserError for an override that a checkpoint decides, data that are not there, checkpoints of different problems, or an
    `out` that cannot be made.
    """
    if out is not None:
        make_out(out)
    with narrator.step("Read checkpoints and draw the problems", "checkpoints") as stage:
        jobs: list[_Job] = []
        for number, path in enumerate(paths):
            checkpoint = find_checkpoint(path, which)
            for given in _crossed(checkpoint, overrides, planners):
                jobs.append(_job(checkpoint, given, out, ""))
            stage.update(number + 1, len(paths))
        jobs = _labelled(jobs, bool(planners))
        for job in jobs:
            ensure_problems(job.run)
        _need_shared_problems(jobs)
        first = jobs[0]
        controls = (replace(first, label=name, control=name, target=first.target / name) for name in CONTROLS)
        jobs += [job for job in controls if job.control == "random" or _is_recorded(job.run)]
        for job in jobs:
            narrator.say(f"{job.label}: {job.checkpoint}" if job.control == "none" else f"control: {job.label} actions")
    solved = _solve(jobs, narrator)
    return report(solved, out, narrator, videos)


def _crossed(checkpoint: Path, overrides: Sequence[str], planners: Sequence[str]) -> list[list[str]]:
    """The overrides of each planner: settings of one that another lacks are left out of the other's."""
    if not planners:
        return [list(overrides)]
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(PlannerConfig)[0])}
    crossed: list[list[str]] = []
    for planner in planners:
        fields = kinds[planner].model_fields if planner in kinds else {}
        kept = [
            given
            for given in overrides
            if not (key := parse_override(given)[0]).startswith(_PLANNER)
            or key.removeprefix(_PLANNER) in fields
            or not any(key.removeprefix(_PLANNER) in kinds[other].model_fields for other in planners if other in kinds)
        ]
        crossed.append([*kept, f"plan.planner.kind={planner}"])
    return crossed


def _job(checkpoint: Path, overrides: Sequence[str], out: Path | None, label: str) -> _Job:
    run = open_trained(checkpoint, overrides, "plan", CHANGEABLE)
    # Outcomes found on disk are not planned again: the folder must name the checkpoint and everything that decides them.
    manifest = read_manifest(checkpoint)  # an imported checkpoint's name is that of its file, not of its config
    key = eval_hash(run.config, f"{manifest['facts']['train_hash']}/{manifest['step']}")
    return _Job(run, checkpoint, label, "none", (out or beside(checkpoint, "planning")) / key)


def _labelled(jobs: Sequence[_Job], with_planner: bool) -> list[_Job]:
    """Variant, and what else tells checkpoints of one seed apart: the planner, then the checkpoint's own name."""
    labels = [
        f"{job.run.config.model.variant} {job.run.config.plan.planner.kind}"
        if with_planner
        else job.run.config.model.variant
        for job in jobs
    ]
    seen: dict[tuple[str, int], set[Path]] = {}
    for job, label in zip(jobs, labels, strict=True):
        seen.setdefault((label, job.run.config.seed), set()).add(job.checkpoint)
    return [
        replace(job, label=label if len(seen[label, job.run.config.seed]) == 1 else f"{label} {_name(job)}")
        for job, label in zip(jobs, labels, strict=True)
    ]


def _name(job: _Job) -> str:
    folder = job.checkpoint
    return folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name


def _need_shared_problems(jobs: Sequence[_Job]) -> None:
    """Raises UserError where two checkpoints would be asked different questions."""
    first = jobs[0]
    for job in jobs[1:]:
        horizons = [one.run.config.evaluate.grid.goal_horizons for one in (first, job)]
        if horizons[0] != horizons[1]:
            raise UserError(
                f"{job.checkpoint}: its goal horizons are {list(horizons[1])}, those of {first.checkpoint} {list(horizons[0])}; "
                "say --goal-horizons"
            )
        if any(problems_file(first.run, h).name != problems_file(job.run, h).name for h in horizons[0]):
            raise UserError(
                f"{job.checkpoint}: its problems are not those of {first.checkpoint}: other data, world, frameskip or plan.seed; "
                "plan for them apart, or share a file with --problems"
            )


def _is_recorded(run: Run) -> bool:
    """Whether the way to every goal is known."""
    horizons = run.config.evaluate.grid.goal_horizons
    return all(p.gt_actions is not None for h in horizons for p in load_problems(problems_file(run, h)))


def _solve(jobs: Sequence[_Job], narrator: Narrator) -> list[Solved]:
    tasks: dict[PlanTask, tuple[int, int]] = {}
    for number, job in enumerate(jobs):
        for horizon in job.run.config.evaluate.grid.goal_horizons:
            file = problems_file(job.run, horizon)
            for index, problem in enumerate(load_problems(file)[: job.run.config.plan.episodes]):
                where = job.target / f"gh{horizon}" / f"{problem.id.replace('/', '_')}.json"
                config = job.run.config.model_dump_json()
                task = PlanTask(str(job.checkpoint), config, str(file), index, job.control, str(where))
                tasks[task] = number, horizon
    found: dict[PlanTask, dict[str, Any]] = {}
    resources = jobs[0].run.config.resources
    with cluster() as nodes:
        placement = place(resources, nodes, 1)
        with narrator.step(f"Plan, {placement.planning_actors} actors", "problems") as stage:

            def done(task: PlanTask, outcome: dict[str, Any]) -> None:
                found[task] = outcome
                tried = [o for t, o in found.items() if t.control == "none"]
                stage.update(len(found), len(tasks), note=f"{sum(o['success'] for o in tried)} of {len(tried)} solved")

            solve_all(list(tasks), placement.planning_actors, resources, done)
    solved: list[Solved] = []
    for number, job in enumerate(jobs):
        outcomes = {horizon: [] for horizon in job.run.config.evaluate.grid.goal_horizons}
        for task, (of, horizon) in tasks.items():
            if of == number:
                outcomes[horizon].append(outcome_from(found[task]))
        control = "" if job.control == "none" else job.control
        solved.append(
            Solved(Planned(job.label, job.run.config.seed, control, outcomes), job.run, job.checkpoint, job.target)
        )
    return solved


def main() -> None:
    """python -m ray_jobs.plan CHECKPOINT [path=value ...]: as `wm plan`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["plan"]
    cli()


if __name__ == "__main__":
    main()
