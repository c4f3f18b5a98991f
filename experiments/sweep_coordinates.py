"""Parallel coordinates of a sweep: an axis for every searched path and one for the objective, a line for every trial."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.figures import COLOURS, INK, PAPER, house_axes
from experiments.metric_text import is_success, label
from experiments.sweep_figures import CROWDED
from experiments.sweep_record import SweepRecord
from experiments.sweep_text import NOT_SAMPLED, count_states, format_setting, short_names

OBJECTIVE = "objective"
# Blue, grey, orange: of middle lightness throughout, so that it reads on white and on near-black; orange is what is sought.
SHADES = LinearSegmentedColormap.from_list("objective", [COLOURS[0], "#8f8d8b", COLOURS[1]], N=32)
BELOW = -0.15  # height of "not sampled"
MAX_TICK = 14


@dataclass(frozen=True)
class CoordinateAxis:
    """One axis, from 0 at its foot to 1 at its head.

    Args:
        path: config path, or the objective's metric.
        name: its short form.
        scale: "choice", "int", "uniform", "loguniform" or OBJECTIVE.
        ticks: (height, label).
        heights: trial number -> height; None where the trial did not sample the path. On the objective's axis only trials
            that have one.
        default: height of the base run's own value, None where it has none that fits.
        best: on the objective's axis, the best trial.
        is_falling: on the objective's axis, whether the lowest is sought.
    """

    path: str
    name: str
    scale: str
    ticks: list[tuple[float, str]]
    heights: dict[int, float | None]
    default: float | None = None
    best: int | None = None
    is_falling: bool = False


def coordinate_frame(record: SweepRecord) -> list[CoordinateAxis]:
    """The axes from left to right; the objective's is last and there only if a trial has one.

    Trials that have sampled nothing yet are left out; without any other there is no axis.
    """
    trials = [trial for trial in record.trials if trial.params]
    names = short_names(record.scales)
    frame: list[CoordinateAxis] = []
    for path, scale in record.scales.items() if trials else ():
        values = {trial.number: trial.params[path] for trial in trials if path in trial.params}
        default = [record.defaults[path]] if path in record.defaults else []
        axis = _categories if scale == "choice" else _numbers
        ticks, at = axis([*values.values(), *default], scale)
        heights = {trial.number: at(values[trial.number]) if trial.number in values else None for trial in trials}
        mark = at(default[0]) if default else None
        frame.append(CoordinateAxis(path, names[path], scale, ticks, heights, mark))
    shown = {trial.number for trial in trials}
    measured = {
        trial.number: trial.value for trial in record.ranked if trial.value is not None and trial.number in shown
    }
    if measured:
        percent = 100 if is_success(record.objective) else 1
        ticks, at = _numbers([percent * value for value in measured.values()], OBJECTIVE)
        name = label(record.objective) + (" (%)" if percent == 100 else "")
        heights = {number: at(percent * value) for number, value in measured.items()}
        best, falls = next(iter(measured)), record.mode == "min"
        frame.append(CoordinateAxis(record.objective, name, OBJECTIVE, ticks, heights, best=best, is_falling=falls))
    return frame


def draw_coordinates(frame: list[CoordinateAxis]) -> Figure:
    """A line for every trial, coloured by the objective; the best one is thick, those without an objective stop before it."""
    figure, axes = house_axes(max(5.2, 1.15 * len(frame) + 1.2), 4.4)
    axes.spines[["left", "bottom"]].set_visible(False)
    last = frame[-1] if frame[-1].scale == OBJECTIVE else None
    searched = [axis for axis in frame if axis.scale != OBJECTIVE]
    foot = BELOW if any(None in axis.heights.values() for axis in searched) else 0.0
    axes.set(xticks=[], yticks=[], xlim=(-0.55, len(frame) - 0.75), ylim=(foot - 0.08, 1.04))
    for x, axis in enumerate(frame):
        _draw_axis(axes, x, axis)
    measured = dict(last.heights) if last else {}
    faint = 0.45 if len(measured) > CROWDED else 0.85
    handles: list[Line2D] = []
    for number in searched[0].heights:
        if number not in measured:
            style: dict[str, Any] = {"color": INK, "lw": 0.9, "alpha": 0.25, "ls": "--"}
            _draw_line(axes, [axis.heights[number] for axis in searched], style)
            handles = [Line2D([], [], **{**style, "alpha": 0.5}, label="no objective")]
    for number, height in measured.items():
        if last and height is not None:
            is_best = number == last.best
            colour = SHADES(1 - height if last.is_falling else height)
            style = {"color": colour, "lw": 3.2 if is_best else 1.4, "alpha": 1 if is_best else faint}
            _draw_line(
                axes, [*(axis.heights[number] for axis in searched), height], {**style, "zorder": 3 if is_best else 2}
            )
            if is_best:
                handles.insert(0, Line2D([], [], **style, label=f"trial {number}, best"))
    mark: dict[str, Any] = {"marker": "D", "ls": "", "ms": 7, "mfc": "none", "mec": INK, "mew": 1.6}
    defaults = [(x, axis.default) for x, axis in enumerate(frame) if axis.default is not None]
    if defaults:
        axes.plot([x for x, _ in defaults], [y for _, y in defaults], **mark, zorder=6)
        handles.append(Line2D([], [], **mark, label="default"))
    if last:
        _draw_bar(figure, axes, last)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def coordinate_caption(record: SweepRecord) -> str:
    """How to read the lines, the number of trials by state and of seeds."""
    objective = label(record.objective)
    text = f"Settings of each trial ({count_states(record)}), an axis for every searched setting"
    if record.best is not None:
        seeds = max(1, max(len(trial.seed_values) for trial in record.ranked))
        text += f" and one for {objective}" + (
            f", the mean over up to {seeds} seeds" if seeds > 1 else ", one seed each"
        )
        text += f", which colours the lines; thick: trial {record.best.number}, the best in the search"
    text += ". Broken lines: trials without an objective."
    if any(path not in trial.params for trial in record.trials if trial.params for path in record.scales):
        text += f" “{NOT_SAMPLED}”: the setting's condition did not hold."
    return text + " Open diamonds: the default, where it has a value." * any(
        path in record.defaults for path in record.scales
    )


def _categories(values: Sequence[Any], scale: str) -> tuple[list[tuple[float, str]], Any]:
    """Ticks of a choice, and its height by value: numbers by size, else by name."""
    numeric = all(_is_number(value) for value in values)
    names = list(dict.fromkeys(format_setting(value) for value in (sorted(values) if numeric else values)))
    names = names if numeric else sorted(names)
    heights = {name: _share(index, 0, len(names) - 1) for index, name in enumerate(names)}
    ticks = [
        (height, name if len(name) <= MAX_TICK else f"{name[: MAX_TICK - 1]}…") for name, height in heights.items()
    ]
    return ticks, lambda value: heights[format_setting(value)]


def _numbers(values: Sequence[Any], scale: str) -> tuple[list[tuple[float, str]], Any]:
    """Ticks of a numeric axis that spans its values, and its height by value; None for what has no place on it."""
    is_log = scale == "loguniform"
    fitting = [float(value) for value in values if _is_number(value) and (value > 0 or not is_log)]
    low, high = min(fitting, default=1.0), max(fitting, default=1.0)

    def at(value: Any) -> float | None:
        if not _is_number(value) or (is_log and value <= 0):
            return None
        return _share(math.log(value), math.log(low), math.log(high)) if is_log else _share(value, low, high)

    if low == high:
        marks = [low]
    elif is_log:
        marks = _log_ticks(low, high)
    else:
        steps = MaxNLocator(5, integer=scale == "int", steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        marks = [float(step) for step in steps if low <= step <= high]
    marks = marks if len(marks) > 1 or low == high else [low, high]
    return [(height, f"{mark:.4g}") for mark in marks if (height := at(mark)) is not None], at


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within the range, or 1, 2, 5 times those where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        marks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        kept = [mark for mark in marks if low <= mark <= high]
        if len(kept) > 1:
            return kept[:: 1 + len(kept) // 7]
    return kept


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others; in the middle when these are one."""
    return 0.5 if low == high else (value - low) / (high - low)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_axis(axes: Axes, x: int, axis: CoordinateAxis) -> None:
    axes.plot([x, x], [0, 1], color=INK, lw=1, alpha=0.6, zorder=1)
    lines = re.split(r"(?<=[.,/])\s*", axis.name)
    for index, line in enumerate(reversed(lines)):
        # One text a line: of a text of several lines, SVG would lose the alignment in another font.
        place = {"xytext": (0, 13 + 12 * index), "textcoords": "offset points", "ha": "center", "parse_math": False}
        axes.annotate(line, (x, 1), **place, fontsize=9.5, color=INK, annotation_clip=False)
    patch = {"boxstyle": "square,pad=0.12", "fc": PAPER, "ec": "none", "alpha": 0.75}
    right = {"textcoords": "offset points", "va": "center", "ha": "right", "parse_math": False, "fontsize": 8.5}
    for height, text in axis.ticks:
        axes.plot([x - 0.03, x], [height, height], color=INK, lw=1, alpha=0.6, zorder=1)
        axes.annotate(text, (x, height), (-7, 0), **right, color=INK, bbox=patch, zorder=5)
    if axis.scale != OBJECTIVE and None in axis.heights.values():
        axes.plot([x, x], [BELOW, 0], color=INK, lw=1, alpha=0.4, ls=":", zorder=1)
        axes.plot([x], [BELOW], marker="o", ms=6, mfc="none", mec=INK, alpha=0.6, zorder=4)
        below = {"textcoords": "offset points", "va": "top", "ha": "center", "fontsize": 8}
        axes.annotate(NOT_SAMPLED, (x, BELOW), (0, -7), **below, color=INK, alpha=0.75, annotation_clip=False)


def _draw_line(axes: Axes, heights: Sequence[float | None], style: dict[str, Any]) -> None:
    places = [BELOW if height is None else height for height in heights]
    axes.plot(range(len(places)), places, marker="o", ms=3, **style)


def _draw_bar(figure: Figure, axes: Axes, last: CoordinateAxis) -> None:
    shades = SHADES.reversed() if last.is_falling else SHADES
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), shades), ax=axes, shrink=0.72, aspect=26, pad=0.01)
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")  # no hairlines between its cells
    bar.outline.set_visible(False)
    bar.set_ticks([height for height, _ in last.ticks], labels=[text for _, text in last.ticks])
    bar.ax.tick_params(colors=INK, labelsize=8.5, length=2)
    bar.set_label(last.name, color=INK, fontsize=9, parse_math=False)
