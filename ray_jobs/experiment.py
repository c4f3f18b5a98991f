"""An experiment from spec to report: prepare, debug, train, plan, record, compare.

python -m ray_jobs.experiment align_vs_align_recon [path=value ...]      (or: wm train ...)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from experiments.comparison import compare
from experiments.comparison_text import render_text
from experiments.ledger import read_record
from experiments.records import ExperimentRecord
from experiments.report import write_report
from experiments.spec import Spec, load_spec
from experiments.tracking import Tracker
from ray_jobs.forgetting_table import render_forgetting
from ray_jobs.runtime.cluster import check_shared, cluster, is_local, local_node
from ray_jobs.runtime.debug import debug_pass
from ray_jobs.runtime.forgetting import measure_forgetting
from ray_jobs.runtime.placement import Placement, place
from ray_jobs.runtime.planning import Control, PlanTask, outcome_from, solve_all
from ray_jobs.runtime.problems import ensure_problems, problems_file
from ray_jobs.runtime.progress import Narrator, Stage
from ray_jobs.runtime.recording import Recorder
from ray_jobs.runtime.runs import Run, open_runs
from ray_jobs.runtime.tokens import encode_missing
from ray_jobs.runtime.training import clean, train_all
from wm.config.errors import UserError
from wm.evaluation.forgetting import Forgetting
from wm.evaluation.outcomes import PlanOutcome, planning_metrics
from wm.evaluation.problems import load_problems
from wm.training.checkpoint import find_checkpoint, list_checkpoints

Outcomes = dict[tuple[str, int], list[PlanOutcome]]
Logs = dict[tuple[str, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Finished:
    """What an experiment ended with.

    Args:
        forgetting: of the runs that started from another, by title.
    """

    record: ExperimentRecord
    report: Path
    failures: list[str]
    forgetting: dict[str, Forgetting]


def run_experiment(
    spec: Spec,
    overrides: dict[str, Any],
    narrator: Narrator,
    *,
    only_resume: bool = False,
    html: Path | None = None,
    show: bool = True,
    parent: str | None = None,
) -> Finished:
    """Everything a spec asks for; what is complete already is not done again.

    Args:
        only_resume: refuse when none of its runs was started.
        html: where the report goes; None means storage.root/reports.
        show: print the table at the end.
        parent: the MLflow run below which it is recorded.

    Raises UserError before any work for whatever can be known to be wrong, and KeyboardInterrupt after a clean stop.
    """
    with narrator.step("Check the spec, the data and the tracker"):
        runs = open_runs(spec, overrides)
        root = runs[0].inputs.root
        if only_resume and not any(list_checkpoints(run.inputs.folder.checkpoints) for run in runs):
            raise UserError(f"--resume: no run of '{spec.name}' with these settings was started under {root}")
        resources = runs[0].config.resources
        if is_local():
            place(resources, [local_node()], len(runs))
        for run in runs:
            ensure_problems(run)
        tracking = runs[0].config.tracking
        tracker = Tracker(tracking, root, tracking.experiment or spec.name)
        narrator.say(f"{len(runs)} runs; results under {root}")
    with ExitStack() as stack:
        with narrator.step("Start Ray" if is_local() else "Join the Ray cluster"):
            placement = place(resources, stack.enter_context(cluster()), len(runs))
            check_shared(root)
        with narrator.step("Encode frames with the frozen encoder", "episodes") as stage:
            encoded = encode_missing(runs, stage.update)
            narrator.say(f"{encoded} episodes encoded" if encoded else "all tokens are in the store already")
        with narrator.step("Debug pass: a few batches of every variant", "variants") as stage:
            _debug(runs, stage, narrator)
        recorder = Recorder(tracker, spec, runs, parent)
        try:
            finished = _run(spec, runs, placement, recorder, narrator, html or root / "reports" / f"{spec.name}.html")
        except BaseException:
            recorder.finish("KILLED")
            raise
        finally:
            clean(root)
    if show:
        for renderable in render_text(compare(finished.record)):
            narrator.console.print(renderable)
        for title, found in finished.forgetting.items():
            for renderable in render_forgetting(title, found):
                narrator.console.print(renderable)
        narrator.console.print(f"Report: {finished.report}", soft_wrap=True, highlight=False)
    return finished


def _run(
    spec: Spec, runs: list[Run], placement: Placement, recorder: Recorder, narrator: Narrator, html: Path
) -> Finished:
    with narrator.step(f"Train {len(runs)} runs, {placement.runs_at_once} at a time", "steps") as stage:
        train_all(runs, placement, recorder, stage)
    complete = [run for run in runs if run.failure is None]
    for run in runs:
        if run.failure is not None:
            narrator.say(f"[red]{run.title} failed:[/red] {run.failure}")
    if not complete:
        recorder.finish("FAILED")
        raise UserError(f"no run was completed; the first failure: {runs[0].title}: {runs[0].failure}")
    forgetting = _forgetting([run for run in complete if run.config.train.start is not None], recorder, narrator)
    outcomes: Outcomes = {}
    logs: Logs = {}
    if any(run.config.evaluate.grid.goal_horizons for run in complete):
        with narrator.step(f"Plan with every checkpoint, {placement.planning_actors} actors", "problems") as stage:
            outcomes, logs = _plan(complete, placement, stage)
    with narrator.step("Record in MLflow", "runs") as stage:
        for number, run in enumerate(complete):
            by_horizon = {h: outcomes[run.title, h] for h in run.config.evaluate.grid.goal_horizons}
            for horizon, found in by_horizon.items():
                metrics = planning_metrics(found, horizon)
                recorder.rows(run, [{"step": run.inputs.total_steps, "metrics": metrics}])
            recorder.outcomes(run, by_horizon, {h: logs[run.title, h] for h in by_horizon})
            stage.update(number + 1, len(complete))
        recorder.controls(_control_values(complete, outcomes))
        recorder.finish("FINISHED" if len(complete) == len(runs) else "FAILED", seconds=narrator.seconds)
    with narrator.step("Compare"):
        record = read_record(recorder.tracker, recorder.parent.run_id)
        write_report(record, html)
        recorder.parent.artifact(html)
    failures = [f"{run.title}: {run.failure}" for run in runs if run.failure is not None]
    return Finished(record, html, failures, forgetting)


def _forgetting(runs: Sequence[Run], recorder: Recorder, narrator: Narrator) -> dict[str, Forgetting]:
    found: dict[str, Forgetting] = {}
    if runs:
        with narrator.step("Judge old and new held-out episodes, before and after", "episodes encoded") as stage:
            for run in runs:
                found[run.title] = measure_forgetting(run, stage.update)
                recorder.forgetting(run, found[run.title])
    return found


def _debug(runs: Sequence[Run], stage: Stage, narrator: Narrator) -> None:
    """One run of each variant and case that is not complete yet."""
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        if not run.is_complete:
            first.setdefault((run.plan.case, run.plan.run), run)
    for number, run in enumerate(first.values()):
        for warning in debug_pass(run):
            narrator.say(f"[yellow]{run.plan.run}: {escape(warning)}[/yellow]")
        stage.update(number + 1, len(first))
    narrator.say(f"{len(first)} variants train, validate and plan" if first else "nothing left to train")


def _plan(runs: Sequence[Run], placement: Placement, stage: Stage) -> tuple[Outcomes, Logs]:
    """Every problem with every checkpoint, and once at random for each case."""
    where: dict[PlanTask, tuple[str, int]] = {}
    kinds: list[tuple[Control, Sequence[Run]]] = [("none", runs), ("random", _one_of_each_case(runs))]
    everything: list[tuple[Run, Control]] = [(run, control) for control, of in kinds for run in of]
    for run, control in everything:
        checkpoint = str(find_checkpoint(run.inputs.folder.path))
        for horizon in run.config.evaluate.grid.goal_horizons:
            file = problems_file(run, horizon)
            for index, problem in enumerate(load_problems(file)):
                out = (run.outcome_file if control == "none" else run.control_file)(horizon, problem.id)
                task = PlanTask(checkpoint, run.config.model_dump_json(), str(file), index, control, str(out))
                where[task] = (run.title if control == "none" else _control_name(run), horizon)
    found: dict[PlanTask, dict[str, Any]] = {}

    def done(task: PlanTask, outcome: dict[str, Any]) -> None:
        found[task] = outcome
        successes = sum(bool(o["success"]) for t, o in found.items() if t.control == "none")
        tried = sum(t.control == "none" for t in found)
        stage.update(len(found), len(where), note=f"{successes} of {tried} solved")

    solve_all(list(where), placement.planning_actors, runs[0].config.resources, done)
    outcomes: Outcomes = {}
    logs: Logs = {}
    for task, key in where.items():
        values = found[task]
        logs.setdefault(key, []).append(values)
        outcomes.setdefault(key, []).append(outcome_from(values))
    return outcomes, logs


def _one_of_each_case(runs: Sequence[Run]) -> list[Run]:
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.plan.case, run)
    return list(first.values())


def _control_name(run: Run) -> str:
    return f"{run.plan.case} random actions"


def _control_values(runs: Sequence[Run], outcomes: Outcomes) -> dict[str, dict[str, list[float]]]:
    """Of each case, success and distance of every problem under random actions; distances where all could be completed."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in _one_of_each_case(runs):
        of_case = values.setdefault(run.plan.case, {})
        for horizon in run.config.evaluate.grid.goal_horizons:
            found = outcomes[_control_name(run), horizon]
            of_case[f"plan/success_rate_gh{horizon}"] = [float(o.success) for o in found]
            if all(o.failure is None for o in found):
                of_case[f"plan/state_distance_gh{horizon}"] = [o.state_distance for o in found]
    return values


def main(arguments: Sequence[str]) -> int:
    """`python -m ray_jobs.experiment SPEC [path=value ...]`."""
    console = Console()
    try:
        spec, overrides = load_spec(arguments[0], arguments[1:])
        finished = run_experiment(spec, overrides, Narrator(console))
    except UserError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, highlight=False)
        return 2
    return 1 if finished.failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
