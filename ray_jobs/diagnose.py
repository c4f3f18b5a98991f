"""Why planning with one checkpoint fails: where success is lost between its problems, search, objective and model.

python -m ray_jobs.diagnose wm_home/runs/HASH [path=value ...]      (or: wm diagnose ...)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.diagnosis_figure import draw_diagnoses
from experiments.figures import to_png
from ray_jobs.diagnosis_table import render_diagnosis
from ray_jobs.runtime.cluster import cluster
from ray_jobs.runtime.placement import place
from ray_jobs.runtime.planning import Control, PlanTask, plain, read_outcome, solve_all
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trained import beside, open_trained
from wm.build import build_world, load
from wm.build_diagnosis import SLOW_ROWS, Diagnostics, shifted_problem
from wm.config.catalogue import choices
from wm.config.diagnosis import DiagnosisConfig
from wm.config.errors import UserError, nearest
from wm.config.experiment import ExperimentConfig
from wm.config.hashing import eval_hash
from wm.config.worlds import WorldConfig
from wm.contracts import World
from wm.data.atomic import atomic_file, write_json
from wm.evaluation.diagnosis import Row
from wm.evaluation.diagnosis_facts import ProblemFacts
from wm.evaluation.diagnosis_summary import Diagnosis, diagnosis
from wm.evaluation.planning import FAULTS
from wm.evaluation.problems import load_problems, save_problems
from wm.training.checkpoint import find_checkpoint, read_manifest
from wm.training_run import pick_device
from wm.types import Problem

CHANGEABLE = ("plan", "evaluate", "resources", "storage", "tracking")
_NO_ORACLE = (
    "recorded actions: plan.problems=random records none; the search's loss is counted from 100 %, and what the model makes of "
    "such actions is unknown"
)
_NO_SHIFTS = "shifts: this world has none, or none was asked for"


class _Place(NamedTuple):
    """Where results lie.

    Args:
        planned: outcomes as evaluated: those of `wm plan`, unless --out is given.
        small: outcomes of the small search, and facts.
    """

    target: Path
    planned: Path
    small: Path

    def file(self, folder: Path, row: str, problem: Problem) -> Path:
        return folder / row / f"gh{problem.goal_horizon}" / _json(problem)


class _Asked(NamedTuple):
    """One row of one goal horizon on actors."""

    row: str
    goal_horizon: int


def diagnose_checkpoint(
    path: Path,
    overrides: Sequence[str],
    out: Path | None,
    narrator: Narrator,
    settings: DiagnosisConfig,
    which: Literal["latest", "best"] = "latest",
) -> dict[int, Diagnosis]:
    """Solve the same problems under one handicap after another, print where success is lost, write diagnosis.json and .png.

    Raises UserError for an override that the checkpoint decides, a shift that the world lacks, or no goal horizon.
    """
    checkpoint = find_checkpoint(path, which)
    manifest = read_manifest(checkpoint)
    if reason := manifest["facts"].get("imported", {}).get("no_plan"):
        raise UserError(f"{checkpoint}: {reason}")
    run = open_trained(checkpoint, overrides, "diagnose", CHANGEABLE)
    horizons = run.config.evaluate.grid.goal_horizons
    if not horizons:
        raise UserError(
            "evaluate.grid.goal_horizons: empty, and a diagnosis needs one; say evaluate.grid.goal_horizons=[5]"
        )
    shifts = _shifts(run.config.plan.world, settings)
    trained = f"{manifest['facts']['train_hash']}/{manifest['step']}"
    place_of = _place(run, checkpoint, out, trained, settings)
    with narrator.step("Read the checkpoint and draw the problems"):
        ensure_problems(run)
        problems = {horizon: load_problems(problems_file(run, horizon)) for horizon in horizons}
        tasks = dict(_tasks(run, checkpoint, problems, shifts, place_of))
        narrator.say(f"{checkpoint}: {run.config.model.variant}, seed {run.config.seed}")
    outcomes = _on_actors(run, tasks, narrator)
    here = _in_process(run, checkpoint, problems, settings, place_of, narrator)
    search = f"CEM of {settings.simulator_samples} x {settings.simulator_iterations}"
    found: dict[int, Diagnosis] = {}
    for horizon in horizons:
        rows = {row: _row(row, each) for (row, of), each in {**outcomes, **here.outcomes}.items() if of == horizon}
        dropped = here.failures[horizon]
        dropped += ([] if "oracle" in rows else [_NO_ORACLE]) + ([] if shifts else [_NO_SHIFTS])
        shown: dict[str, Row] = {}
        for shift in shifts:
            row = rows.pop(f"shift_{shift}", None)
            refused = len(problems[horizon]) - (0 if row is None else len(row.solved))
            dropped += (
                [f"shift {shift}: the world refuses the states of {refused} problems under it"] if refused else []
            )
            shown |= {} if row is None else {shift: row}
        found[horizon] = diagnosis(horizon, rows, here.facts[horizon], shown, search, dropped)
    _report(found, checkpoint, run, settings, place_of.target, narrator)
    return found


def _place(run: Run, checkpoint: Path, out: Path | None, trained: str, settings: DiagnosisConfig) -> _Place:
    target = out or beside(checkpoint, "diagnosis")
    key = eval_hash(run.config, trained)
    planned = (beside(checkpoint, "planning") if out is None else out / "planning") / key
    size = f"{settings.simulator_samples}x{settings.simulator_iterations}_{settings.candidates}"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {target}: cannot be made ({error.strerror})") from error
    return _Place(target, planned, target / "problems" / key / size)


def _shifts(world: WorldConfig, settings: DiagnosisConfig) -> tuple[str, ...]:
    """Those asked for. Raises UserError for one that the world lacks."""
    own = getattr(world, "shift", "none")
    offered = tuple(shift for shift in choices(type(world), "shift") if shift not in ("none", own))
    for shift in settings.shifts or ():
        if shift not in offered:
            hint = nearest(shift, offered) or " It has none."
            raise UserError(f"--shifts: world '{world.kind}' has no shift '{shift}'.{hint}")
    return offered if settings.shifts is None else settings.shifts


def _tasks(
    run: Run, checkpoint: Path, problems: dict[int, list[Problem]], shifts: Sequence[str], place_of: _Place
) -> Iterator[tuple[PlanTask, _Asked]]:
    """What `wm plan` plans, its controls, and the same under shifts."""
    config = run.config

    def asked(
        row: str, config: ExperimentConfig, file: Path, control: Control, horizon: int, folder: Path
    ) -> Iterator[Any]:
        text = config.model_dump_json()
        for number, problem in enumerate(load_problems(file)):
            out = str(folder / f"gh{horizon}" / _json(problem))
            yield PlanTask(str(checkpoint), text, str(file), number, control, out), _Asked(row, horizon)

    rows = place_of.small.parent
    for horizon, given in problems.items():
        file = problems_file(run, horizon)
        if given[0].gt_actions is not None:
            yield from asked("oracle", config, file, "oracle", horizon, rows / "oracle")
        yield from asked("random", config, file, "random", horizon, rows / "random")
        yield from asked("evaluated", config, file, "none", horizon, place_of.planned)
        for shift in shifts:
            world = config.plan.world.model_copy(update={"shift": shift})
            changed = config.model_copy(update={"plan": config.plan.model_copy(update={"world": world})})
            drawn = rows / f"shift_{shift}" / f"{file.stem}.npz"
            if not drawn.is_file():
                with closing(build_world(world)) as shown:
                    save_problems(drawn, _accepted(given, shown))
            yield from asked(f"shift_{shift}", changed, drawn, "none", horizon, rows / f"shift_{shift}")


def _accepted(problems: Sequence[Problem], world: World) -> list[Problem]:
    """As the world shows them; those that it refuses (a larger body fits less) are left out."""
    found: list[Problem] = []
    for problem in problems:
        with suppress(ValueError):
            found.append(shifted_problem(problem, world))
    return found


def _on_actors(run: Run, tasks: dict[PlanTask, _Asked], narrator: Narrator) -> dict[_Asked, list[dict[str, Any]]]:
    """Outcomes by row, in the order of the problems. No cluster is started where all are there already."""
    found = {task: outcome for task in tasks if (outcome := read_outcome(Path(task.out))) is not None}
    if len(found) < len(tasks):
        resources = run.config.resources
        with cluster() as nodes:
            placement = place(resources, nodes, 1)
            with narrator.step(f"Plan, {placement.planning_actors} actors", "problems") as stage:

                def done(task: PlanTask, outcome: dict[str, Any]) -> None:
                    found[task] = outcome
                    stage.update(len(found), len(tasks), note=tasks[task].row)

                solve_all(list(tasks), placement.planning_actors, resources, done)
    rows: dict[_Asked, list[dict[str, Any]]] = {}
    for task, asked in tasks.items():
        rows.setdefault(asked, []).append(found[task])
    return rows


class _Here(NamedTuple):
    """What was solved and measured in this process; failures in words."""

    outcomes: dict[_Asked, list[dict[str, Any]]]
    facts: dict[int, list[ProblemFacts]]
    failures: dict[int, list[str]]


def _in_process(
    run: Run,
    checkpoint: Path,
    problems: dict[int, list[Problem]],
    settings: DiagnosisConfig,
    place_of: _Place,
    narrator: Narrator,
) -> _Here:
    """The slow rows and the facts of the first problems, each written when it is done."""
    chosen = [
        (horizon, problem) for horizon, given in problems.items() for problem in given[: settings.simulator_problems]
    ]
    found = _Here({}, {horizon: [] for horizon in problems}, {horizon: [] for horizon in problems})
    done, total = 0, len(chosen) * (len(SLOW_ROWS) + 1)
    config = run.config
    with (
        closing(build_world(config.plan.world)) as world,
        narrator.step("Search in the simulator, measure model and objective", "rows of problems") as stage,
    ):
        model = load(str(checkpoint), device=str(pick_device(config.train.device)))
        asked = Diagnostics(config.plan, settings, model, world, memory_gb=config.resources.planning_memory_gb)
        # Problem by problem, so that the time left is a fair guess from the first one on.
        for horizon, problem in chosen:
            for row in SLOW_ROWS:
                file = place_of.file(place_of.small, row, problem)
                outcome = read_outcome(file)
                if outcome is None:
                    outcome = plain(asked.solve(row, problem))
                    write_json(file, outcome)
                found.outcomes.setdefault(_Asked(row, horizon), []).append(outcome)
                done += 1
                stage.update(done, total, note=row)
            file = place_of.file(place_of.small, "facts", problem)
            try:
                if file.is_file():
                    facts = ProblemFacts.from_json(json.loads(file.read_text(encoding="utf-8")))
                else:
                    facts = asked.facts(problem)
                    write_json(file, facts.to_json())
                found.facts[horizon].append(facts)
            except FAULTS as error:
                found.failures[horizon].append(f"measures of {problem.id}: {type(error).__name__}: {error}")
            done += 1
            stage.update(done, total, note="measures")
    return found


def _row(name: str, outcomes: Sequence[dict[str, Any]]) -> Row:
    solved = {outcome["problem"]: bool(outcome["success"]) for outcome in outcomes}
    return Row(name, solved, sum(outcome["failure"] is not None for outcome in outcomes))


def _report(
    found: dict[int, Diagnosis], checkpoint: Path, run: Run, settings: DiagnosisConfig, target: Path, narrator: Narrator
) -> None:
    write_json(
        target / "diagnosis.json",
        {
            "checkpoint": str(checkpoint),
            "variant": run.config.model.variant,
            "world": run.config.plan.world.model_dump(mode="json"),
            "plan": run.config.plan.model_dump(mode="json"),
            "settings": settings.model_dump(mode="json"),
            "goal_horizons": {str(horizon): each.to_json() for horizon, each in found.items()},
        },
    )
    with atomic_file(target / "diagnosis.png") as partial:
        partial.write_bytes(to_png(draw_diagnoses(list(found.values()))))
    for each in found.values():
        for renderable in render_diagnosis(each):
            narrator.console.print(renderable)
    narrator.console.print(f"{target}: diagnosis.json, diagnosis.png", highlight=False, soft_wrap=True)


def _json(problem: Problem) -> str:
    return f"{problem.id.replace('/', '_')}.json"


def main() -> None:
    """python -m ray_jobs.diagnose CHECKPOINT [path=value ...]: as `wm diagnose`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["diagnose"]
    cli()


if __name__ == "__main__":
    main()
