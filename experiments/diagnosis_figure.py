"""The figure of a diagnosis: success row by row, the model's error by step, and how costs order plans and states."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import COLOURS, INK
from wm.evaluation.diagnosis import CAUSES, ROWS, Row
from wm.evaluation.diagnosis_summary import Diagnosis
from wm.evaluation.statistics import Interval

_SHORT = {
    "cheaper_imagined": "random plans the model finds\ncheaper than the recorded",
    "cheaper_true": "random plans true frames find\ncheaper than the recorded",
    "order_imagined": "cost orders random plans,\nby the model",
    "order_true": "cost orders random plans,\nby true frames",
    "order_oracle": "latent distance orders states\nalong recorded actions",
    "order_random": "latent distance orders states\nalong random actions",
}


def draw_diagnoses(found: Sequence[Diagnosis]) -> Figure:
    """A row of three panels for each goal horizon. Whiskers are 95 % intervals over problems.

    Raises ValueError without a diagnosis.
    """
    if not found:
        raise ValueError("a figure needs a diagnosis")
    height = max(0.42 * (len(each.rows) + len(each.shifts)) + 1.5 for each in found)
    figure = Figure(figsize=(14.5, max(height, 3.6) * len(found) + 0.3), layout="constrained", facecolor="white")
    heads = "\n".join(
        f"{f'Goal horizon {each.goal_horizon}. ' if len(found) > 1 else ''}{each.verdict.words[0]}" for each in found
    )
    figure.suptitle(heads, x=0.01, ha="left", fontsize=11.5, color=INK, parse_math=False)
    panels = figure.subplots(len(found), 3, squeeze=False, width_ratios=(1.35, 0.8, 1.0))
    for (chain, error, order), each in zip(panels, found, strict=True):
        for axes in (chain, error, order):
            _dress(axes)
        _chain(chain, each)
        _error(error, each)
        _order(order, each)
    return figure


def _chain(axes: Axes, found: Diagnosis) -> None:
    bars: list[tuple[str, Row, str, bool]] = []
    for name, title in ROWS.items():
        if name in found.rows:
            loss = found.verdict.loss
            is_worst = loss is not None and name == loss.lower
            colour = COLOURS[1] if is_worst else COLOURS[0] if name in CAUSES else INK
            bars.append((title, found.rows[name], colour, False))
            if name == "evaluated":
                bars += [(f"shift: {shift}", each.row, COLOURS[0], True) for shift, each in found.shifts.items()]
    for place, (_, row, colour, is_shift) in enumerate(bars):
        size = 0.36 if is_shift else 0.62
        axes.barh(
            place, 100 * row.rate, height=size, color=colour, alpha=0.35 if is_shift or colour == INK else 0.75, lw=0
        )
        axes.plot([100 * row.interval.low, 100 * row.interval.high], [place, place], color=INK, lw=1.4)
        counts = f"{sum(row.solved.values())}/{len(row.solved)}"
        axes.text(103, place, counts, va="center", ha="left", fontsize=8.5, color=INK, alpha=0.8)
    axes.set_yticks(range(len(bars)))
    axes.set_yticklabels(
        [f"   {title}" if is_shift else title for title, _, _, is_shift in bars], fontsize=9, parse_math=False
    )
    for text, (_, _, colour, _) in zip(axes.get_yticklabels(), bars, strict=True):
        if colour == COLOURS[1]:
            text.set(color=colour, fontweight="bold")  # its bar may have no length
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("problems solved (%)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.8)
    _title(axes, f"Where success is lost, goal horizon {found.goal_horizon}")


def _error(axes: Axes, found: Diagnosis) -> None:
    _title(axes, "The model, recorded actions")
    if not found.error_ratio:
        axes.text(
            0.5, 0.5, "no recorded actions", ha="center", va="center", transform=axes.transAxes, color=INK, fontsize=9
        )
        axes.set_axis_off()
        return
    steps = range(1, len(found.error_ratio) + 1)
    axes.plot(steps, found.error_ratio, color=COLOURS[0], marker="o", ms=5, lw=1.7)
    axes.axhline(1.0, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0)
    axes.set_ylim(0, max(1.1, 1.08 * max((value for value in found.error_ratio if value < float("inf")), default=0.0)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("model step")
    axes.set_ylabel("latent error / copying the start", color=INK, fontsize=9.5)
    axes.grid(color=INK, alpha=0.14, lw=0.8)


def _order(axes: Axes, found: Diagnosis) -> None:
    _title(axes, "Shares (square) and rank correlations (dot)")
    names = [name for name in _SHORT if name in found.measures]
    for place, name in enumerate(names):
        measure, is_share = found.measures[name], name.startswith("cheaper")
        colour = COLOURS[1] if is_share else COLOURS[2]
        _whisker(axes, measure.interval, place, colour)
        axes.plot([measure.value], [place], ls="", marker="s" if is_share else "o", ms=7, color=colour)
        # What a perfect model or objective would show.
        axes.plot([0.0 if is_share else 1.0], [place], ls="", marker="|", ms=13, mew=1.6, color=INK, alpha=0.7)
    axes.set_yticks(range(len(names)))
    axes.set_yticklabels([_SHORT[name] for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-1.06, 1.06)
    axes.axvline(0, color=INK, lw=0.8, alpha=0.4, zorder=0)
    axes.set_xlabel("mean over problems; upright stroke: perfect")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.8)


def _whisker(axes: Axes, interval: Interval | None, place: int, colour: str) -> None:
    if interval is not None:
        axes.plot([interval.low, interval.high], [place, place], color=colour, lw=2.2, alpha=0.55)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, color=INK, parse_math=False)


def _dress(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=INK, alpha=0.5)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=9.5)
