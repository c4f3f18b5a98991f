"""Figures of an experiment: records -> frame (a list of rows) -> draw(frame) -> Figure, and how a figure travels.

Figures are made with matplotlib's object interface: no pyplot, no global state, no display. They have a white panel as
PNG; as inline SVG the panel is dropped, the ink becomes `currentColor` and what hides lines behind a label takes the page's
`--paper`, so that light and dark pages both read well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.comparison import ComparisonTable
from experiments.metric_text import is_comparable, is_success, label
from experiments.records import ExperimentRecord
from wm.evaluation.statistics import paired_t

# Okabe and Ito's colours that read on white and on near-black alike; marker and line style repeat the distinction.
COLOURS = ("#0080c8", "#d55e00", "#009e73", "#c2649c", "#b98b00", "#7a6fd0")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
INK, PAPER = "#1b1f24", "#fefefe"
CURVES = ("val/copy_ratio_h1", "val/copy_ratio_h5", "val/copy_ratio_h10", "val/state_probe_r2", "val/effective_rank")


@dataclass(frozen=True)
class SuccessPoint:
    """One row of the success figure: a variant (or the control) in one case; `order` gives it one colour everywhere."""

    case: str
    variant: str
    order: int
    metric: str
    mean: float
    low: float | None
    high: float | None
    method: str
    per_seed: dict[int, float]
    num_problems: int
    is_control: bool


@dataclass(frozen=True)
class CurvePoint:
    """One row of the curves: a variant's metric at one training step, over the seeds that reached it together."""

    case: str
    variant: str
    order: int
    metric: str
    step: int
    mean: float
    low: float
    high: float
    num_seeds: int


def success_frame(table: ComparisonTable, metric: str | None = None) -> list[SuccessPoint]:
    """Rows of the success figure, in the order of the table; variants without the metric have none."""
    name = metric or table.metric
    variants = list(dict.fromkeys(row.variant for row in table.rows if not row.is_control))
    frame: list[SuccessPoint] = []
    for row in table.rows:
        if estimate := row.estimates.get(name):
            interval = estimate.interval
            ends = (interval.low, interval.high, interval.method) if interval else (None, None, "none")
            order = -1 if row.is_control else variants.index(row.variant)
            seeds, problems = {} if row.is_control else estimate.per_seed, estimate.num_problems
            low, high, method = ends
            point = SuccessPoint(
                row.case, row.variant, order, name, estimate.value, low, high, method, seeds, problems, row.is_control
            )
            frame.append(point)
    return frame


def curve_frame(record: ExperimentRecord, metrics: tuple[str, ...] = CURVES) -> list[CurvePoint]:
    """Rows of the curves: complete runs only, and only metrics whose scale all variants share.

    From three seeds on the ends are the 95 % Student t interval, below them the smallest and largest seed.

    Raises:
        ValueError: a metric is on each variant's own scale, such as a training loss.
    """
    frame: list[CurvePoint] = []
    for metric in metrics:
        if not is_comparable(metric):
            raise ValueError(f"{metric} is on each variant's own scale and cannot share axes")
        for case in record.cases:
            for variant in record.variants:
                frame += _curve(record, case, variant, metric)
    return frame


def _curve(record: ExperimentRecord, case: str, variant: str, metric: str) -> list[CurvePoint]:
    series = [dict(run.history[metric]) for run in record.complete_runs(case, variant) if run.history.get(metric)]
    steps = sorted(set.intersection(*(set(one) for one in series))) if series else []
    points: list[CurvePoint] = []
    for step in steps:
        values = np.array([one[step] for one in series])
        if not np.isfinite(values).all():
            continue
        low, high = float(values.min()), float(values.max())
        if len(values) > 2:
            interval = paired_t(values)
            low, high = interval.low, interval.high
        mean, order = float(values.mean()), record.variants.index(variant)
        points.append(CurvePoint(case, variant, order, metric, step, mean, low, high, len(values)))
    return points


def draw_success(frame: list[SuccessPoint]) -> Figure:
    """Mean, interval and seeds of every variant of one case, one line each, with the control as a dashed line."""
    figure, axes = house_axes(5.2, 0.75 + 0.48 * len(frame))
    scale = 100 if is_success(frame[0].metric) else 1
    for height, point in enumerate(frame):
        colour = INK if point.is_control else COLOURS[point.order % len(COLOURS)]
        marker = "x" if point.is_control else MARKERS[point.order % len(MARKERS)]
        if point.low is not None and point.high is not None:
            axes.plot([scale * point.low, scale * point.high], [height, height], color=colour, lw=2.2, alpha=0.55)
        seeds = [scale * value for value in point.per_seed.values()]
        small = {"ls": "", "marker": marker, "ms": 4, "mfc": "none", "mec": colour}
        axes.plot(seeds, [height + 0.24] * len(seeds), **small)
        axes.plot([scale * point.mean], [height], marker=marker, ms=8, color=colour, ls="")
        if point.is_control:
            axes.axvline(scale * point.mean, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0)
    axes.set_yticks(range(len(frame)))
    for text, point in zip(axes.set_yticklabels([point.variant for point in frame]), frame, strict=True):
        text.set(parse_math=False, fontsize=10, alpha=0.75 if point.is_control else 1)
    axes.set_ylim(len(frame) - 0.5, -0.6)
    if scale == 100:
        axes.set_xlim(-3, 103)
    axes.set_xlabel(f"{label(frame[0].metric)} (%)" if scale == 100 else label(frame[0].metric), parse_math=False)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def draw_curves(frame: list[CurvePoint]) -> Figure:
    """One metric of one case over training steps, a line and a band per variant; the legend names each."""
    figure, axes = house_axes(4.3, 3.1)
    for index, variant in dict.fromkeys((point.order, point.variant) for point in frame):
        points = [point for point in frame if point.variant == variant]
        steps = [point.step for point in points]
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(steps, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.16, lw=0)
        style = {"marker": MARKERS[index % len(MARKERS)], "ls": LINES[index % len(LINES)], "ms": 4, "lw": 1.7}
        axes.plot(steps, [p.mean for p in points], color=colour, **style, label=variant)
    if "copy_ratio" in frame[0].metric:
        axes.axhline(1.0, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0)
    axes.set_xlabel("Training step")
    axes.set_title(label(frame[0].metric), loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.grid(color=INK, alpha=0.14, lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for text in axes.legend(frameon=False, fontsize=9, labelcolor=INK).get_texts():
        text.set_parse_math(False)
    return figure


def success_caption(frame: list[SuccessPoint]) -> str:
    """Number of seeds and interval method of the success figure, in words."""
    variants = [point for point in frame if not point.is_control]
    methods = "; ".join(dict.fromkeys(point.method for point in variants))
    seeds = format_counts(len(point.per_seed) for point in variants)
    text = f"{label(frame[0].metric)} by variant, case {frame[0].case}: mean over {seeds}"
    text += f", 95 % interval ({methods}), and each seed as a small open marker."
    if control := next((point for point in frame if point.is_control), None):
        text += f" Dashed: {control.variant} ({control.method})."
    return text


def curve_caption(frame: list[CurvePoint]) -> str:
    """Number of seeds and meaning of the band of one panel of curves, in words."""
    counts = sorted({point.num_seeds for point in frame})
    text = f"{label(frame[0].metric)} during training, case {frame[0].case}: mean over {format_counts(counts)}"
    bands = ["one run, no band"] * (1 in counts) + ["band from the lower to the higher seed"] * (2 in counts)
    bands += ["band: 95 % Student t interval over seeds"] * (max(counts) > 2)
    text += f" ({'; '.join(bands)})."
    return text + (
        " At the dashed line a model does no better than copying the last frame." * ("copy_ratio" in frame[0].metric)
    )


def rollout_strip(rows: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A PNG grid of labelled rows of frames, such as true, decoded and predicted.

    Args:
        rows: label -> frames (T, H, W, 3), uint8 or float in [0, 1]; all of one H and W, T may differ.
    Raises:
        ValueError: no rows, or frames of another shape or of two sizes.
    """
    frames = {name: np.asarray(images) for name, images in rows.items()}
    sizes = {images.shape[1:] for images in frames.values()}
    if len(sizes) != 1 or any(images.ndim != 4 or images.shape[-1] != 3 for images in frames.values()):
        shapes = {name: images.shape for name, images in frames.items()}
        raise ValueError(f"a strip needs rows of frames (T, H, W, 3) of one size, got {shapes}")
    (height, width, _), gap = sizes.pop(), 0.04
    columns = max(len(images) for images in frames.values())
    cell_x, cell_y = 1.0, height / width
    margin = 0.35 + 0.085 * max(len(name) for name in frames)
    wide, tall = margin + columns * (cell_x + gap), 0.3 + len(frames) * (cell_y + gap)
    figure = Figure(figsize=(wide, tall), dpi=96, facecolor="white")
    for row, (name, images) in enumerate(frames.items()):
        bottom = tall - 0.3 - row * (cell_y + gap) - cell_y
        figure.text(
            0.1 / wide, (bottom + cell_y / 2) / tall, name, va="center", color=INK, fontsize=9, parse_math=False
        )
        for column, image in enumerate(images):
            left = margin + column * (cell_x + gap)
            axes = figure.add_axes((left / wide, bottom / tall, cell_x / wide, cell_y / tall))
            axes.imshow(image if image.dtype == np.uint8 else np.clip(image, 0, 1), aspect="auto")
            axes.set_axis_off()
    for column in range(columns):
        middle = margin + column * (cell_x + gap) + cell_x / 2
        figure.text(middle / wide, 1 - 0.18 / tall, str(column), ha="center", va="center", color=INK, fontsize=8)
    return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """The figure on a white panel."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96 * 1.5)
    return buffer.getvalue()


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an inline SVG element that takes its ink from the page; `title` is its alternative text."""
    buffer = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": title}
    with matplotlib.rc_context(settings):
        hidden = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=hidden)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, white)")
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"|<!--.*?-->', "", svg, flags=re.DOTALL)
    for size in ("width", "height"):  # the page decides; viewBox keeps the proportions
        svg = re.sub(rf'(<svg[^>]*?)\s{size}="[^"]*"', r"\1", svg, count=1)
    alternative = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{alternative}"', 1)


def house_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in the house look, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot(facecolor="none")
    in_house_look(axes)
    return figure, axes


def in_house_look(axes: Axes) -> None:
    """Two spines in faint ink, small ticks."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=INK, alpha=0.5)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=10)


def format_counts(counts: Iterable[int]) -> str:
    """Numbers of seeds: "3 seeds", or "2 to 3 seeds" where they differ."""
    numbers = sorted(set(counts))
    words = " to ".join(str(number) for number in ([numbers[0], numbers[-1]] if len(numbers) > 1 else numbers))
    return f"{words} seed" + ("" if numbers == [1] else "s")
