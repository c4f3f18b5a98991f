"""The report of forgetting, for a terminal."""

from __future__ import annotations

import re

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from wm.evaluation.forgetting import Forgetting, Judged
from wm.evaluation.metric_names import METRICS


def render_forgetting(title: str, found: Forgetting) -> list[RenderableType]:
    """One row for each validation metric: on what the run before held out, and on new held-out episodes, before and after.

    Args:
        title: of the run.
    """
    heading = f"What {title} learnt, and what run {found.start} knew"
    view = Table(title=heading, title_justify="left", box=box.SIMPLE, padding=(0, 1), min_width=len(heading) + 2)
    view.add_column("held-out episodes", no_wrap=True)
    view.add_column("better")
    for judged, column in ((found.old, "old data: before -> after"), (found.new, "new data: before -> after")):
        if judged is not None:
            view.add_column(column, justify="right", no_wrap=True)
    for metric in found.metrics:
        cells = [_cell(judged, metric) for judged in (found.old, found.new) if judged is not None]
        view.add_row(metric.removeprefix("val/"), _better(metric), *cells)
    lines: list[RenderableType] = [view]
    if found.missing is not None:
        lines.append(Text(f"What was forgotten is not known: {found.missing}", style="yellow"))
    return lines


def _better(metric: str) -> str:
    """Which way, as docs/metrics.md has it."""
    name = re.sub(r"_h\d+$", "_h{h}", metric.rsplit("/", 1)[-1])
    return next((known.better for known in METRICS if known.name.split("/")[0] == name), "-")


def _cell(judged: Judged, metric: str) -> Text:
    before, after = judged.of(metric)
    return Text(f"{_number(before)} -> {_number(after)}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
