"""A self-contained HTML page: how it is rendered, and how it is written."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments.comparison import ComparisonTable, Difference
from experiments.comparison_text import failure_text, format_cell
from experiments.figures import draw_success, success_caption, success_frame, to_svg
from experiments.metric_text import NOT_AVAILABLE, format_difference, format_ends, format_seeds, label


@dataclass(frozen=True)
class Panel:
    """An inline figure of one case and its caption."""

    case: str
    svg: Markup
    caption: str


def make_panel(case: str, figure: Figure, caption: str) -> Panel:
    """A figure as it stands in a page; the caption is its alternative text too."""
    return Panel(case, Markup(to_svg(figure, caption)), caption)


def success_panels(table: ComparisonTable) -> list[Panel]:
    """The deciding metric of every variant, a panel per case that has it."""
    points = success_frame(table)
    frames = [[point for point in points if point.case == case] for case in table.cases]
    return [make_panel(frame[0].case, draw_success(frame), success_caption(frame)) for frame in frames if frame]


def render_page(template: str, **values: Any) -> str:
    """HTML text of a template beside this file; every value is escaped unless it is markup."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        label=label,
        cell=format_cell,
        failure_text=failure_text,
        interval_text=_interval_text,
        difference_text=format_difference,
        seeds_text=format_seeds,
    )
    return environment.get_template(template).render(**values)


def write_page(html: str, path: Path) -> None:
    """Write a page; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _interval_text(table: ComparisonTable, difference: Difference) -> str:
    return format_ends(table.metric, difference.interval) if difference.interval else NOT_AVAILABLE
