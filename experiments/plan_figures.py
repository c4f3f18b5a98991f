"""Figures of planning: success over goal horizons, over replanning, costs over iterations, and where things went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import COLOURS, INK, LINES, MARKERS, house_axes
from wm.evaluation.outcomes import PlanOutcome
from wm.evaluation.statistics import Interval, wilson

CONTROL_COLOUR = "#8a8f98"
_CONTROL_LINES = ("--", ":")
_GREEN, _RED = "#009e73", "#d55e00"


@dataclass(frozen=True)
class HorizonPoint:
    """Success of one label at one goal horizon; `order` gives it one colour everywhere, -1 to a control.

    Args:
        distance: mean state distance at the end, where problems were completed.
        plan_s: mean seconds a plan; None for controls.
    """

    label: str
    order: int
    horizon: int
    mean: float
    interval: Interval | None
    distance: float | None = None
    plan_s: float | None = None


def draw_goal_horizons(frame: Sequence[HorizonPoint]) -> Figure:
    """Success in percent over goal horizons, a line and a band of 95 % a label; controls are dashed and grey."""
    figure, axes = house_axes(6.4, 3.3)
    labels = list(dict.fromkeys((point.order, point.label) for point in frame))
    horizons = sorted({point.horizon for point in frame})
    gap = min((after - before for before, after in pairwise(horizons)), default=1)
    for place, (order, label) in enumerate(labels):
        points = sorted((p for p in frame if p.label == label and p.order == order), key=lambda p: p.horizon)
        # Side by side: intervals on one spot could not be told apart.
        x = [p.horizon + gap * 0.06 * (place - (len(labels) - 1) / 2) for p in points]
        mean = [100 * p.mean for p in points]
        if order < 0:
            dashes = _CONTROL_LINES[place % len(_CONTROL_LINES)]
            axes.plot(x, mean, color=CONTROL_COLOUR, ls=dashes, lw=1.3, marker=".", label=label)
            continue
        colour = COLOURS[order % len(COLOURS)]
        ends = [p.interval or Interval(p.mean, p.mean) for p in points]
        low, high = ([100 * end for end in side] for side in zip(*((i.low, i.high) for i in ends), strict=True))
        if len(points) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.08, lw=0)
        errors = np.abs(np.array([low, high]) - np.array(mean))
        style = {"marker": MARKERS[order % len(MARKERS)], "ls": LINES[order % len(LINES)], "ms": 5, "lw": 1.7}
        axes.errorbar(x, mean, errors, color=colour, capsize=2.5, elinewidth=1, label=label, **style)
    axes.set_ylim(-4, 104)
    axes.set_xticks(horizons)
    axes.set_xlabel("Goal horizon (model steps)")
    axes.set_ylabel("Success (%)", color=INK)
    axes.grid(color=INK, alpha=0.14, lw=0.8)
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    for text in axes.legend(frameon=False, fontsize=9, labelcolor=INK, **beside).get_texts():
        text.set_parse_math(False)
    return figure


def draw_success_by_iteration(by_horizon: Mapping[int, Sequence[PlanOutcome]]) -> Figure:
    """Share of problems solved by the end of each MPC iteration, with Wilson's interval, a line a goal horizon."""
    figure, axes = house_axes(4.3, 3.0)
    for order, (horizon, outcomes) in enumerate(sorted(by_horizon.items())):
        done = [o.success_by_iteration for o in outcomes if o.success_by_iteration]
        length = max((len(met) for met in done), default=0)
        solved = [sum(met[min(number, len(met) - 1)] for met in done) for number in range(length)]
        ends = [wilson(count, len(outcomes)) for count in solved]
        x, colour = range(1, length + 1), COLOURS[order % len(COLOURS)]
        mean = [100 * count / len(outcomes) for count in solved]
        axes.fill_between(x, [100 * e.low for e in ends], [100 * e.high for e in ends], color=colour, alpha=0.1, lw=0)
        style = {"marker": MARKERS[order % len(MARKERS)], "ls": LINES[order % len(LINES)]}
        axes.plot(x, mean, color=colour, ms=4, lw=1.6, label=f"goal horizon {horizon}", **style)
    axes.set_ylim(-4, 104)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("Plans executed")
    axes.set_ylabel("Solved (%)", color=INK)
    axes.grid(color=INK, alpha=0.14, lw=0.8)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw_costs(outcomes: Sequence[PlanOutcome]) -> Figure | None:
    """Cost over the first plan's iterations relative to its first, a line a problem, green where solved; None where unknown."""
    traces = [(np.array(o.cost_trace[0]), o.success) for o in outcomes if o.cost_trace and len(o.cost_trace[0]) > 1]
    if not traces:
        return None
    figure, axes = house_axes(4.3, 3.0)
    for trace, success in traces:
        axes.plot(range(1, len(trace) + 1), trace / trace[0], color=_GREEN if success else _RED, lw=1, alpha=0.5)
    for colour, name in ((_GREEN, "solved"), (_RED, "not solved")):
        axes.plot([], [], color=colour, label=name)
    axes.set_xlabel("Planner iteration")
    axes.set_ylabel("Best cost / first iteration's", color=INK)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color=INK, alpha=0.14, lw=0.8)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw_trajectories(
    outcomes: Sequence[PlanOutcome], goals: Sequence[np.ndarray], names: Sequence[str], most: int = 12
) -> Figure:
    """The first two state entries of the first problems: way (line), start (dot), goal (star); green where solved."""
    shown = [(o, goal) for o, goal in zip(outcomes, goals, strict=True) if o.failure is None][:most]
    columns = min(4, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(2.1 * columns, 2.2 * rows), layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, (outcome, goal) in zip(panels, shown, strict=False):
        states, colour = np.array(outcome.states), _GREEN if outcome.success else _RED
        panel.plot(states[:, 0], states[:, 1], color=colour, lw=1.4)
        panel.plot(*states[0, :2], marker="o", ms=5, color=INK, ls="")
        panel.plot(*goal[:2], marker="*", ms=10, color="#0080c8", ls="")
        panel.set_aspect("equal", adjustable="datalim")
        panel.tick_params(labelsize=7, colors=INK)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(outcome.problem, fontsize=7, color=INK, parse_math=False)
    figure.supxlabel(names[0], fontsize=9, color=INK, parse_math=False)
    figure.supylabel(names[1], fontsize=9, color=INK, parse_math=False)
    return figure
