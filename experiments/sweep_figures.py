"""Figures of a sweep: record -> frame (a list of rows) -> draw(frame) -> Figure; `sweep_coordinates` has the fourth.

Orange is the best, here as there; other states have a colour, a marker and a line of their own. A frame without rows has no
figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.figures import COLOURS, INK, format_counts, house_axes
from experiments.metric_text import is_success, label
from experiments.sweep_record import SweepRecord, TrialState
from experiments.sweep_text import STATES, count_states, short_names

BEST = COLOURS[1]
STYLES: dict[TrialState, tuple[str, str, str]] = {  # colour, marker, line
    "complete": (COLOURS[0], "o", "-"),
    "pruned": (COLOURS[4], "v", "--"),
    "failed": (COLOURS[3], "x", ":"),
    "running": (COLOURS[5], ">", "-."),
}
CROWDED = 20  # trials above which lines and markers become fainter


@dataclass(frozen=True)
class HistoryPoint:
    """One trial of the history.

    Args:
        value: the objective, or None of a trial without one.
        low, high: smallest and largest seed; None for one seed.
        best_so_far: of this and all earlier trials; None before the first that has an objective.
    """

    number: int
    state: TrialState
    metric: str
    value: float | None
    low: float | None
    high: float | None
    best_so_far: float | None


@dataclass(frozen=True)
class ImportanceBar:
    """One searched path and the share of the objective's variance that it explains."""

    path: str
    name: str
    share: float


@dataclass(frozen=True)
class TrialCurve:
    """The pruning metric of one trial's first seed: (epoch, value) until it ended or was stopped."""

    number: int
    state: TrialState
    metric: str
    points: list[tuple[int, float]]
    is_best: bool


def history_frame(record: SweepRecord) -> list[HistoryPoint]:
    """Every trial by number, with the best until then."""
    choose = max if record.mode == "max" else min
    frame: list[HistoryPoint] = []
    best: float | None = None
    for trial in sorted(record.trials, key=lambda trial: trial.number):
        value = trial.value if trial.state == "complete" else None
        if value is not None:
            best = value if best is None else choose(best, value)
        seeds = list(trial.seed_values.values()) if value is not None and len(trial.seed_values) > 1 else []
        low, high = min(seeds, default=None), max(seeds, default=None)
        frame.append(HistoryPoint(trial.number, trial.state, record.objective, value, low, high, best))
    return frame


def importance_frame(record: SweepRecord) -> list[ImportanceBar]:
    """Searched paths by falling share; empty when shares cannot be told."""
    names = short_names(record.scales)
    shares = sorted(record.importances.items(), key=lambda item: -item[1])
    return [ImportanceBar(path, names.get(path, path), share) for path, share in shares]


def pruning_frame(record: SweepRecord) -> list[TrialCurve]:
    """The trials that reported the pruning metric, by number; empty without one."""
    best, metric = record.best, record.prune_on
    return [
        TrialCurve(trial.number, trial.state, metric, sorted(trial.pruning), trial is best)
        for trial in sorted(record.trials, key=lambda trial: trial.number)
        if metric is not None and trial.pruning
    ]


def draw_history(frame: list[HistoryPoint]) -> Figure:
    """The objective by trial, the best so far as steps, trials without an objective along the bottom."""
    figure, axes = house_axes(5.2, 3.4)
    metric = frame[0].metric
    scale = 100 if is_success(metric) else 1
    measured = [(point, scale * point.value) for point in frame if point.value is not None]
    colour, marker, _ = STYLES["complete"]
    faint = 0.75 if len(frame) > CROWDED else 1.0
    for point, _ in measured:
        if point.low is not None and point.high is not None:
            ends = [scale * point.low, scale * point.high]
            axes.plot([point.number] * 2, ends, color=colour, lw=1.8, alpha=0.5 * faint)
    handles = [Line2D([], [], color=BEST, lw=1.8, label="best so far")] * bool(measured)
    so_far = [(point.number, scale * point.best_so_far) for point in frame if point.best_so_far is not None]
    axes.step([x for x, _ in so_far], [y for _, y in so_far], where="post", color=BEST, lw=1.8)
    style = {"ls": "", "marker": marker, "ms": 5 if len(frame) > CROWDED else 6.5, "color": colour}
    axes.plot([point.number for point, _ in measured], [y for _, y in measured], **style, alpha=faint)
    handles += [Line2D([], [], **style, label="complete")] * bool(measured)
    drawn = [y for _, y in measured] + [scale * end for p, _ in measured for end in (p.low, p.high) if end is not None]
    _set_values(axes, drawn, is_percent=scale == 100)
    for state in STATES:
        numbers = [point.number for point in frame if point.value is None and point.state == state]
        if numbers and state in STYLES:
            colour, marker, _ = STYLES[state]
            style = {"ls": "", "marker": marker, "ms": 6, "color": colour}
            # Heights in shares of the axes: the bottom is no value of the objective.
            axes.plot(numbers, [0.04] * len(numbers), **style, transform=axes.get_xaxis_transform(), clip_on=False)
            handles.append(Line2D([], [], **style, label=state))
    first, last = frame[0].number, frame[-1].number
    pad = 0.6 + 0.01 * (last - first)
    axes.set_xlim(first - pad, last + pad)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("Trial")
    axes.set_title(_axis_label(metric), loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.grid(axis="y", color=INK, alpha=0.14, lw=0.8)
    _legend(figure, handles)
    return figure


def draw_importances(frame: list[ImportanceBar]) -> Figure:
    """A bar per path, the largest on top."""
    figure, axes = house_axes(5.2, 0.75 + 0.36 * len(frame))
    shares = [100 * bar.share for bar in frame]
    axes.barh(range(len(frame)), shares, height=0.62, color=COLOURS[0])
    for height, share in enumerate(shares):
        axes.annotate(
            f"{share:.0f} %", (share, height), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_yticks(range(len(frame)))
    for text in axes.set_yticklabels([bar.name for bar in frame]):
        text.set(parse_math=False, fontsize=10)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max(shares) or 100)
    axes.set_xlabel("Share of the objective's variance (%)")
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return figure


def draw_pruning(frame: list[TrialCurve]) -> Figure:
    """The pruning metric by epoch, a line per trial; a mark where it was stopped or failed."""
    figure, axes = house_axes(5.2, 3.4)
    metric = frame[0].metric
    faint = 0.4 if len(frame) > CROWDED else 0.8
    handles: list[Line2D] = []
    for state in STATES:
        chosen = [curve for curve in frame if curve.state == state and not curve.is_best]
        if chosen and state in STYLES:
            colour, marker, line = STYLES[state]
            # A finished trial needs no mark at its end, unless it has nothing else to show.
            end = {"marker": marker, "ms": 6, "ls": "", "color": colour}
            for curve in chosen:
                _plot(axes, curve, color=colour, ls=line, lw=1.3, alpha=faint)
                if state != "complete" or len(curve.points) == 1:
                    axes.plot(*curve.points[-1], **end, alpha=min(1.0, 2 * faint))
            shown = {} if state == "complete" else {"marker": marker, "ms": 6}
            handles.append(Line2D([], [], color=colour, ls=line, lw=1.5, **shown, label=state))
    for curve in frame:
        if curve.is_best:
            _plot(axes, curve, color=BEST, lw=2.4, marker="o", ms=4)
            handles.insert(0, Line2D([], [], color=BEST, lw=2.4, marker="o", ms=4, label=f"trial {curve.number}, best"))
    if "copy_ratio" in metric:
        axes.axhline(1.0, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0)
    axes.set_xlabel("Epoch")
    axes.set_title(_axis_label(metric), loc="left", fontsize=10.5, color=INK, parse_math=False)
    axes.grid(color=INK, alpha=0.14, lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _legend(figure, handles)
    return figure


def history_caption(record: SweepRecord) -> str:
    """What the history shows, the number of trials by state and of seeds."""
    text = f"{label(record.objective)} by trial, in the order of proposal ({count_states(record)})"
    counts = [max(1, len(trial.seed_values)) for trial in record.ranked]
    if not counts:
        return f"{text}: none has an objective."
    text += f": mean over {format_counts(counts)}" if max(counts) > 1 else ": one seed each"
    text += ", whisker from the lowest to the highest seed" if max(counts) > 1 else ""
    sought = "highest" if record.mode == "max" else "lowest"
    return f"{text}. Line: {sought} so far, which moves by luck too. Along the bottom: trials without an objective."


def importance_caption(record: SweepRecord) -> str:
    """What the bars show, from how many trials."""
    text = f"How much of the variation of {label(record.objective)} each setting explains in these trials (fANOVA)"
    text += f"; {count_states(record)}, of which only complete ones count"
    counts = [max(1, len(trial.seed_values)) for trial in record.ranked]
    text += f", each the mean over {format_counts(counts)}" if counts else ""
    return f"{text}. A setting is judged on the trials that sampled it; with few trials shares are rough."


def pruning_caption(record: SweepRecord) -> str:
    """What the curves show, the number of trials by state, and that there is one seed."""
    metric = label(record.prune_on or "")
    sought = "lower" if record.prune_mode == "min" else "higher"
    text = f"{metric} of the first seed of each trial while it trains ({count_states(record)}; {sought} is sought)."
    text += " Pruned trials end where they were stopped."
    copies = "copy_ratio" in (record.prune_on or "")
    return text + " At the dashed line a model does no more than copy the last frame." * copies


def _plot(axes: Axes, curve: TrialCurve, **style: Any) -> None:
    axes.plot([epoch for epoch, _ in curve.points], [value for _, value in curve.points], **style)


def _set_values(axes: Axes, values: list[float], is_percent: bool) -> None:
    """Limits with room for the marks along the bottom, and ticks at values that the metric can take."""
    if not values:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no trial has an objective", transform=axes.transAxes, ha="center", color=INK, alpha=0.75)
        return
    span = max(values) - min(values) or max(abs(values[0]), 1.0) / 5
    low, high = min(values) - 0.22 * span, max(values) + 0.08 * span
    axes.set_ylim(low, high)
    ticks = MaxNLocator(6).tick_values(low, high)
    foot = low + 0.1 * (high - low)  # where the marks are
    kept = [float(tick) for tick in ticks if foot <= tick <= high and (not is_percent or 0 <= tick <= 100)]
    axes.set_yticks(kept)


def _axis_label(metric: str) -> str:
    return f"{label(metric)} (%)" if is_success(metric) else label(metric)


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    if handles:
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
