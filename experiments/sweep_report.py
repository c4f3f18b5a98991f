"""One self-contained HTML page per sweep: what the best trial is worth first, then what that rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.comparison import compare
from experiments.figures import to_png
from experiments.metric_text import format_value, label
from experiments.page import Panel, make_panel, render_page, success_panels, write_page
from experiments.records import ExperimentRecord
from experiments.sweep_coordinates import coordinate_caption, coordinate_frame, draw_coordinates
from experiments.sweep_figures import (
    draw_history,
    draw_importances,
    draw_pruning,
    history_caption,
    history_frame,
    importance_caption,
    importance_frame,
    pruning_caption,
    pruning_frame,
)
from experiments.sweep_record import SweepRecord, TrialRecord
from experiments.sweep_text import (
    best_text,
    count_states,
    format_objective,
    format_seed_values,
    format_setting,
    short_names,
    verdict_texts,
)

TEMPLATE = "sweep_report.html.j2"
TOP = 10
MANY_AXES = 6  # from here on parallel coordinates need the width of the page


@dataclass(frozen=True)
class TrialRow:
    """One trial as a table shows it; a setting that was not sampled is None."""

    number: int
    state: str
    value: str
    spread: str
    seeds: str
    settings: list[str | None]
    time: str
    failure: str
    is_best: bool


@dataclass(frozen=True)
class Drawing:
    """A figure of the sweep, or why there is none."""

    title: str
    panel: Panel | None
    reason: str
    is_wide: bool


def write_sweep_report(record: SweepRecord, path: Path) -> None:
    """Write the report of a sweep; a reader never sees half a file."""
    write_page(render_sweep_report(record), path)


def render_sweep_report(record: SweepRecord) -> str:
    """The report as HTML text: no script, no external reference, everything embedded and escaped."""
    table = compare(record.confirmation) if record.confirmation else None
    verdict, *reasons = verdict_texts(record)
    return render_page(
        TEMPLATE,
        record=record,
        question=question(record),
        verdict=verdict,
        best=best_text(record),
        states=count_states(record),
        reasons=reasons,
        table=table,
        panels=success_panels(table) if table else [],
        settings=short_names(record.scales),
        top=[_row(record, trial) for trial in record.ranked[:TOP]],
        rows=[_row(record, trial) for trial in sorted(record.trials, key=lambda trial: trial.number)],
        defaults=[_default(record, path) for path in record.scales],
        drawings=_drawings(record),
        seeds=", ".join(map(str, record.seeds)),
        fresh=_fresh_seeds(record.confirmation),
    )


def question(record: SweepRecord) -> str:
    """What was searched, as a question."""
    sought = "highest" if record.mode == "max" else "lowest"
    where = f" in {record.case}" if record.case else ""
    return f"Which settings give {record.base} the {sought} {label(record.objective)}{where}?"


def _row(record: SweepRecord, trial: TrialRecord) -> TrialRow:
    value, spread = format_objective(record, trial) if trial.state == "complete" else ("", "")
    settings = [format_setting(trial.params[path]) if path in trial.params else None for path in record.scales]
    time = "" if trial.seconds is None else format_value("trial/time_s", trial.seconds)
    seeds = format_seed_values(record, trial) if trial.state == "complete" else ""
    failure = trial.failure or ("no reason recorded" if trial.state == "failed" else "")
    return TrialRow(
        trial.number, trial.state, value, spread, seeds, settings, time, failure, is_best=trial is record.best
    )


def _default(record: SweepRecord, path: str) -> str | None:
    return format_setting(record.defaults[path]) if path in record.defaults else None


_FIGURES: dict[str, tuple[Callable[[SweepRecord], list[Any]], Callable[[list[Any]], Figure]]] = {
    "history": (history_frame, draw_history),
    "while_they_train": (pruning_frame, draw_pruning),
    "parallel_coordinates": (coordinate_frame, draw_coordinates),
    "importances": (importance_frame, draw_importances),
}


def write_sweep_figures(record: SweepRecord, folder: Path) -> list[Path]:
    """The report's figures as PNG files; those that have nothing to show are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, (make_frame, draw) in _FIGURES.items():
        if frame := make_frame(record):
            written.append(folder / f"{name}.png")
            written[-1].write_bytes(to_png(draw(frame)))
    return written


def _drawings(record: SweepRecord) -> list[Drawing]:
    nothing = "no trial was started" if not record.trials else "no trial has sampled settings yet"
    untold = "it cannot be told from these trials: too few are complete, or they do not differ"
    unjudged = "no trial reported the pruning metric" if record.prune_on else "no metric stops trials early"
    return [
        _drawing(record, "History", "history", history_caption, nothing),
        _drawing(record, "While they train", "while_they_train", pruning_caption, unjudged),
        _drawing(record, "Settings", "parallel_coordinates", coordinate_caption, nothing, MANY_AXES),
        _drawing(record, "Which settings matter", "importances", importance_caption, untold),
    ]


def _drawing(
    record: SweepRecord,
    title: str,
    figure: str,
    caption: Callable[[SweepRecord], str],
    reason: str,
    wide_from: float = inf,
) -> Drawing:
    make_frame, draw = _FIGURES[figure]
    frame = make_frame(record)
    panel = make_panel(record.case, draw(frame), caption(record)) if frame else None
    return Drawing(title, panel, f"Not drawn: {reason}.", len(frame) >= wide_from)


def _fresh_seeds(confirmation: ExperimentRecord | None) -> str:
    return ", ".join(str(seed) for seed in sorted({run.seed for run in confirmation.runs} if confirmation else ()))
