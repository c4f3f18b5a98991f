"""What `wm plan` leaves behind: videos, figures, logs, the goal-horizon table, and MLflow runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from experiments.comparison import ComparisonTable, compare
from experiments.comparison_text import markdown_row
from experiments.figures import to_png
from experiments.metric_text import count
from experiments.pictures import plan_video
from experiments.plan_figures import (
    HorizonPoint,
    draw_costs,
    draw_goal_horizons,
    draw_success_by_iteration,
    draw_trajectories,
)
from experiments.plan_record import METRIC, Planned, case_of, planning_record
from experiments.provenance import git_commit, library_versions, machine
from experiments.report import write_report
from experiments.tracking import Tracker, flatten
from ray_jobs.runtime.planning import plain
from ray_jobs.runtime.problems import problems_file
from ray_jobs.runtime.progress import Narrator
from ray_jobs.runtime.runs import Run
from ray_jobs.runtime.trained import encode_missing
from wm.build import build_world, load
from wm.config.errors import UserError
from wm.data.atomic import atomic_file, write_json
from wm.evaluation.decoded import decoded_frames
from wm.evaluation.imagined import held, imagined_latents
from wm.evaluation.outcomes import PlanOutcome, planning_metrics, replayed
from wm.evaluation.problems import load_problems
from wm.evaluation.retrieval import FrameBank
from wm.evaluation.statistics import mean_interval
from wm.loaded import LoadedModel
from wm.types import Problem

BANK_CLIPS = 256
EXPERIMENT = "planning"


@dataclass(frozen=True)
class Solved:
    """Every outcome of one checkpoint and planner, or of a control.

    Args:
        target: where its outcomes lie.
    """

    planned: Planned
    run: Run
    checkpoint: Path
    target: Path

    @property
    def horizons(self) -> list[int]:
        return sorted(self.planned.outcomes)

    def problems(self, horizon: int) -> list[Problem]:
        """In the order of the outcomes."""
        return load_problems(problems_file(self.run, horizon))[: len(self.planned.outcomes[horizon])]


def report(solved: Sequence[Solved], out: Path | None, narrator: Narrator, videos: int) -> list[Planned]:
    """Write and print everything.

    Args:
        out: where what speaks of all of them goes; None: beside the only checkpoint, or in storage.root/planning.
        videos: of each checkpoint and goal horizon.
    """
    planned = [each.planned for each in solved]
    checkpoints = [each for each in solved if not each.planned.control]
    folder = out or _common_folder(checkpoints)
    for each in checkpoints:
        with narrator.step(f"Draw {each.planned.label}, seed {each.planned.seed}", "pictures") as stage:
            _draw(each, videos, stage.update)
    facts = {"commit": git_commit(), "machine": machine()}
    table = compare(record := planning_record("planning", planned, facts))
    frame = horizon_frame(table, planned)
    _write_figure(folder / "goal_horizons.png", draw_goal_horizons(frame))
    with atomic_file(folder / "goal_horizons.md") as partial:
        partial.write_text(_markdown(table, frame), encoding="utf-8")
    with atomic_file(folder / "record.json") as partial:
        partial.write_text(record.to_json(indent=1), encoding="utf-8")
    write_report(record, folder / "report.html")
    with narrator.step("Record in MLflow", "runs") as stage:
        for number, each in enumerate(checkpoints):
            _record(each, folder)
            stage.update(number + 1, len(checkpoints))
    _say(table, frame, planned, folder, narrator)
    return planned


def horizon_frame(table: ComparisonTable, planned: Sequence[Planned]) -> list[HorizonPoint]:
    """Rows of the figure and the table: labels in their order, then controls."""
    groups: dict[tuple[str, int], list[PlanOutcome]] = {}
    for each in planned:
        for horizon, outcomes in each.outcomes.items():
            groups.setdefault((each.label, horizon), []).extend(outcomes)
    labels = list(dict.fromkeys(each.label for each in planned if not each.control))
    cases = {case_of(horizon): horizon for _, horizon in groups}
    points: list[HorizonPoint] = []
    for row in table.rows:
        estimate, horizon = row.estimates[METRIC], cases[row.case]
        means = _distance(groups[row.variant, horizon]), _plan_s(groups[row.variant, horizon])
        order = labels.index(row.variant)
        points.append(HorizonPoint(row.variant, order, horizon, estimate.value, estimate.interval, *means))
    for each in planned:
        for horizon, outcomes in each.outcomes.items() if each.control else ():
            success = np.array([[float(outcome.success) for outcome in outcomes]])
            mean, interval = float(success.mean()), mean_interval(success)
            points.append(HorizonPoint(f"{each.label} actions", -1, horizon, mean, interval, _distance(outcomes)))
    return points


def _distance(outcomes: Sequence[PlanOutcome]) -> float | None:
    known = [outcome.state_distance for outcome in outcomes if outcome.failure is None]
    return float(np.mean(known)) if known else None


def _plan_s(outcomes: Sequence[PlanOutcome]) -> float | None:
    known = [seconds for outcome in outcomes for seconds in outcome.plan_s]
    return float(np.mean(known)) if known else None


def _say(
    table: ComparisonTable, frame: Sequence[HorizonPoint], planned: Sequence[Planned], folder: Path, narrator: Narrator
) -> None:
    view = Table(title="Success by goal horizon", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    horizons = sorted({point.horizon for point in frame})
    for index, head in enumerate(["", *(f"goal {horizon}" for horizon in horizons)]):
        view.add_column(head, justify="right" if index else "left")
    for label, order in dict.fromkeys((point.label, point.order) for point in frame):
        cells = [_cell(frame, label, order, horizon) for horizon in horizons]
        view.add_row(Text(label), *(Text("\n".join(cell)) for cell in cells), style="dim" if order < 0 else None)
    narrator.console.print(view)
    for item in table.differences:
        text = Text(f"- {item.case}: {item.verdict}", style="bold" if item.settled else "")
        narrator.console.print(text, soft_wrap=True)
    for each in planned:
        for horizon, outcomes in each.outcomes.items():
            _say_what_is_wrong(each.label, horizon, outcomes, narrator)
    sizes = count(max(len(o) for each in planned for o in each.outcomes.values()), "problem")
    note = (
        f"{sizes} a goal horizon. {table.caption} Then the mean state distance at the end and the mean seconds a plan."
    )
    narrator.console.print(Text(note, style="dim"))
    narrator.console.print(f"Outcomes, videos, figures: {folder}", highlight=False, soft_wrap=True)


def _cell(frame: Sequence[HorizonPoint], label: str, order: int, horizon: int) -> list[str]:
    """Success and its interval, the distance left, the seconds a plan."""
    point = next((p for p in frame if (p.label, p.order, p.horizon) == (label, order, horizon)), None)
    if point is None:
        return [""]
    lines = [f"{100 * point.mean:.0f} %"]
    if point.interval is not None:
        lines.append(f"[{100 * point.interval.low:.0f}, {100 * point.interval.high:.0f}]")
    if point.distance is not None:
        lines.append(f"{point.distance:.3g} away")
    if point.plan_s is not None:
        lines.append(f"{point.plan_s:.2g} s")
    return lines


def _say_what_is_wrong(label: str, horizon: int, outcomes: Sequence[PlanOutcome], narrator: Narrator) -> None:
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed[:5]:
        narrator.say(f"[red]{label}, goal {horizon}, {outcome.problem}: failed:[/red] {outcome.failure}")
    if len(failed) > 5:
        narrator.say(
            f"[red]{label}, goal {horizon}: {len(failed) - 5} more failed; their reasons are in logs.json[/red]"
        )
    warned = [warning for outcome in outcomes for warning in outcome.warnings]
    if warned:
        narrator.say(f"[yellow]{label}, goal {horizon}: {count(len(warned), 'warning')}, such as: {warned[0]}[/yellow]")


def _markdown(table: ComparisonTable, frame: Sequence[HorizonPoint]) -> str:
    horizons = sorted({point.horizon for point in frame})
    lines = [markdown_row(["", *(f"goal horizon {h}" for h in horizons)]), markdown_row(["---"] * (len(horizons) + 1))]
    for label, order in dict.fromkeys((point.label, point.order) for point in frame):
        cells = [" ".join(_cell(frame, label, order, h)[:2]) for h in horizons]
        lines.append(markdown_row([label, *cells]))
    return "\n".join([*lines, "", *(f"- {item.case}: {item.verdict}" for item in table.differences), ""])


# -- one checkpoint -----------------------------------------------------------------------------------------------------


def _draw(solved: Solved, videos: int, progress: Callable[[int, int], None]) -> None:
    run, planned = solved.run, solved.planned
    world, model = build_world(run.config.plan.world), load(solved.checkpoint)
    pictures = _Pictures(model, run)
    total = sum(min(videos, len(outcomes)) for outcomes in planned.outcomes.values())
    drawn = 0
    for horizon in solved.horizons:
        outcomes, folder = planned.outcomes[horizon], solved.target / f"gh{horizon}"
        problems = solved.problems(horizon)
        for number, (problem, outcome) in enumerate(list(zip(problems, outcomes, strict=True))[:videos]):
            if outcome.failure is None:
                frames, proprio = replayed(world, problem, outcome.states)
                imagined = pictures.film(outcome, frames, proprio)
                video = plan_video(frames, problem.frame_g, outcome.success, imagined, pictures.how)
                word = "success" if outcome.success else "failure"
                with atomic_file(folder / f"plan_{number}_{word}.mp4") as partial:
                    partial.write_bytes(video)
            drawn += 1
            progress(drawn, total)
        goals = [problem.state_g for problem in problems]
        names = [*world.state_names, ""][:2]
        _write_figure(folder / "trajectories.png", draw_trajectories(outcomes, goals, names))
        if (costs := draw_costs(outcomes)) is not None:
            _write_figure(folder / "cost.png", costs)
        write_json(folder / "logs.json", [plain(outcome) for outcome in outcomes])
    _write_figure(solved.target / "success_by_iteration.png", draw_success_by_iteration(planned.outcomes))
    write_json(solved.target / "metrics.json", solved_metrics(planned))
    world.close()


def solved_metrics(planned: Planned) -> dict[str, float]:
    """`plan/..._gh{h}` of every goal horizon; what is unknown is left out."""
    found: dict[str, float] = {}
    for horizon, outcomes in planned.outcomes.items():
        found |= planning_metrics(outcomes, horizon)
    return {name: value for name, value in found.items() if value == value}


class _Pictures:
    """Of imagined latents: the decoder's, or the nearest training frames'; none where the data hold no frames."""

    def __init__(self, model: LoadedModel, run: Run) -> None:
        self._model = model
        self._decoder = model.model.decoder
        self._bank: FrameBank | None = None
        if self._decoder is None and run.inputs.dataset.has_pixels:
            history = model.model.history_len
            clips = run.inputs.dataset.training_clips(history + 1).spread(BANK_CLIPS, run.config.evaluate.seed)
            encode_missing(run.inputs, clips, lambda done, total: None)  # an imported model was not trained here
            batch = run.inputs.batch(clips).to(next(model.model.parameters()).device)
            self._bank = FrameBank(model.model, run.inputs.dataset, clips, batch)
        self.how = "imagined" if self._decoder is not None else "imagined: nearest frame"

    def film(self, outcome: PlanOutcome, frames: np.ndarray, proprio: list[np.ndarray]) -> np.ndarray | None:
        """uint8 (T, H, W, 3) beside the executed frames, or None."""
        if not outcome.plans or (self._bank is None and self._decoder is None):
            return None
        latents, steps = imagined_latents(self._model, outcome, frames, proprio)
        visual = self._model.model.visual(latents[None])[0]
        pictures = self._bank.nearest(visual) if self._decoder is None else decoded_frames(self._decoder, visual)  # type: ignore[union-attr]
        if pictures.shape[1:] != frames.shape[1:]:
            import cv2

            size = frames.shape[2], frames.shape[1]
            pictures = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])
        return held(pictures, steps, frames[0], len(frames))


def _record(solved: Solved, folder: Path) -> None:
    """One MLflow run a checkpoint and planner; the same command finds it again."""
    run, planned = solved.run, solved.planned
    tracker = Tracker(run.config.tracking, run.inputs.root, run.config.tracking.experiment or EXPERIMENT)
    tags = {
        "wm.role": "planning",
        "variant": run.config.model.variant,
        "planner": run.config.plan.planner.kind,
        "seed": str(planned.seed),
        "wm.checkpoint": solved.checkpoint.name,
        "wm.train_hash": run.inputs.hash,
        "commit": git_commit(),
        "data_fingerprint": run.inputs.dataset.fingerprint,
        "machine": machine(),
        **{f"version.{name}": version for name, version in library_versions().items()},
    }
    params = flatten(run.config.model_dump(mode="json", include={"plan": True, "evaluate": {"grid"}}))
    identity = f"{solved.target.name}/{run.config.plan.episodes}"  # more problems are other numbers
    log = tracker.open_run(f"{planned.label} seed {planned.seed}", identity, tags=tags, params=params)
    log.rows([{"step": 0, "metrics": solved_metrics(planned)}])
    for file in sorted(solved.target.glob("*.png")):
        log.artifact(file)
    for horizon in solved.horizons:
        for file in sorted((solved.target / f"gh{horizon}").glob("*.[pm][np][g4]")):
            log.artifact(file, f"gh{horizon}")
        log.artifact(solved.target / f"gh{horizon}" / "logs.json", f"gh{horizon}")
    for name in ("goal_horizons.png", "goal_horizons.md", "report.html"):
        log.artifact(folder / name)
    log.finish()


def _common_folder(checkpoints: Sequence[Solved]) -> Path:
    if len(checkpoints) == 1:
        return checkpoints[0].target
    names = "/".join(sorted(each.target.name for each in checkpoints))
    key = hashlib.sha256(names.encode()).hexdigest()[:12]
    return checkpoints[0].run.inputs.root / "planning" / key


def _write_figure(file: Path, figure: Figure) -> None:
    try:
        with atomic_file(file) as partial:
            partial.write_bytes(to_png(figure))
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error
