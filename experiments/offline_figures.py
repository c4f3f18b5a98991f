"""Figures of `wm plan --offline`: one clip's actions over time, and all clips at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.figures import COLOURS, INK, MARKERS, in_house_look
from wm.evaluation.offline import MEAN, OTHER, PLANNED, RANDOM, RECORDED, ClipOutcome
from wm.evaluation.offline_metrics import ACTING, Estimate, at_level, normalized
from wm.types import Statistics

WORDS = {
    PLANNED: "planned",
    RECORDED: "recorded",
    OTHER: "another clip's",
    RANDOM: "random",
    MEAN: "mean action",
}
_LOOKS = {who: (COLOURS[number % len(COLOURS)], MARKERS[number]) for number, who in enumerate(ACTING)}
_LOOKS[RECORDED] = (INK, "x")
_MOST_PANELS = 8
_MOST_POINTS = 2000


@dataclass(frozen=True)
class Bar:
    """One row of the summary: a metric of one kind of actions at one goal horizon."""

    goal_horizon: int
    who: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """What the summary shows.

    Args:
        horizon: the longest goal horizon: that of `errors` and `points`.
        errors: mean latent error of the model and of copying the start, at each step (horizon,).
        points: recorded and planned model steps in normalised units, (n, 2).
        num_clips, num_episodes: behind it.
    """

    cosines: list[Bar]
    costs: list[Bar]
    horizon: int
    errors: dict[str, NDArray[np.float64]]
    points: NDArray[np.float64]
    num_clips: int
    num_episodes: int


def summary_frame(
    outcomes: Mapping[int, Sequence[ClipOutcome]],
    metrics: Mapping[str, Estimate],
    statistics: Statistics,
    frameskip: int,
) -> Summary:
    """From the outcomes by goal horizon, none of which failed, and their metrics."""
    horizon = max(outcomes)
    longest = outcomes[horizon]
    steps = {
        who: np.concatenate([_model_steps(each, who, statistics, frameskip).flatten() for each in longest])
        for who in (RECORDED, PLANNED)
    }
    points = np.stack([steps[RECORDED], steps[PLANNED]], axis=1)
    every = max(1, len(points) // _MOST_POINTS)
    return Summary(
        cosines=_bars(outcomes, metrics, "cosine", ACTING),
        costs=_bars(outcomes, metrics, "cost", (RECORDED, *ACTING)),
        horizon=horizon,
        errors={
            "model, recorded actions": np.mean([each.latent_error for each in longest], axis=0),
            "copying the start": np.mean([each.copy_error for each in longest], axis=0),
        },
        points=points[::every],
        num_clips=sum(map(len, outcomes.values())),
        num_episodes=len({each.episode for group in outcomes.values() for each in group}),
    )


def draw_summary(summary: Summary) -> Figure:
    """Direction and cost with their intervals, latent error by step, planned against recorded."""
    figure = Figure(figsize=(10.5, 7), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2).flatten()
    _draw_bars(panels[0], summary.cosines, "Direction: cosine with the recorded action")
    panels[0].axhline(0, color=INK, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0)
    _draw_bars(panels[1], summary.costs, "Cost under the objective")
    panels[1].set_ylim(bottom=0)
    steps = np.arange(1, summary.horizon + 1)
    for number, (name, errors) in enumerate(summary.errors.items()):
        panels[2].plot(steps, errors, color=COLOURS[number], marker=MARKERS[number], ms=4, lw=1.7, label=name)
    panels[2].set_xlabel("Model step")
    panels[2].set_ylim(bottom=0)
    panels[2].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[2].legend(frameon=False, fontsize=9, labelcolor=INK)
    _title(panels[2], f"Latent error, {summary.horizon} steps")
    reach = max(3.0, float(np.quantile(np.abs(summary.points), 0.995)))
    panels[3].plot(*summary.points.T, ls="", marker="o", ms=3, mec="none", color=COLOURS[0], alpha=0.35)
    panels[3].plot([-reach, reach], [-reach, reach], color=INK, lw=0.9, alpha=0.6)
    panels[3].set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="recorded", ylabel="planned")
    _title(panels[3], f"Model steps, goal {summary.horizon} steps away, in standard deviations")
    for axes in panels:
        in_house_look(axes)
        axes.yaxis.label.set(color=INK, fontsize=10)
        axes.grid(color=INK, alpha=0.14, lw=0.8)
    caption = f"{summary.num_clips} clips of {summary.num_episodes} episodes; bars: 95 % bootstrap over episodes"
    figure.supxlabel(caption, fontsize=9, color=INK)
    return figure


def draw_clip(outcome: ClipOutcome, names: Sequence[str], frameskip: int) -> Figure:
    """Planned and recorded actions in raw units over env steps, a panel a column (the first eight), a tick line at each look."""
    count = min(len(names), _MOST_PANELS)
    figure = Figure(figsize=(7.5, 0.9 + 1.35 * count), layout="constrained", facecolor="white")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False).flatten()
    for column, axes in enumerate(panels):
        for who in (RECORDED, PLANNED):
            values = np.asarray(outcome.actions[who])[:, column]
            held = np.append(values, values[-1])  # an action lasts until the next one
            colour = _LOOKS[who][0]
            style = {"lw": 1.8, "ls": "-" if who == PLANNED else (0, (4, 2))}
            axes.step(np.arange(len(held)), held, where="post", color=colour, label=WORDS[who], **style)
        for look in outcome.looks:
            axes.axvline(look * frameskip, color=INK, lw=0.8, alpha=0.35, zorder=0)
        in_house_look(axes)
        axes.grid(axis="y", color=INK, alpha=0.14, lw=0.8)
        _title(axes, names[column])
    panels[-1].set_xlabel("Env step from the start (upright lines: where it looked and planned)")
    panels[0].legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    text = f"{outcome.clip}" + (f" (the first {count} of {len(names)} columns)" if count < len(names) else "")
    figure.suptitle(text, fontsize=10, color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def _bars(
    outcomes: Mapping[int, Sequence[ClipOutcome]], metrics: Mapping[str, Estimate], name: str, kinds: Sequence[str]
) -> list[Bar]:
    bars: list[Bar] = []
    for horizon in outcomes:
        for who in kinds:
            of = "" if who == PLANNED else f"_{who}"
            found = metrics.get(f"plan/offline_{name}{of}_gh{horizon}")
            if found is not None:
                ends = (found.interval.low, found.interval.high) if found.interval else (None, None)
                bars.append(Bar(horizon, who, found.value, *ends))
    return bars


def _draw_bars(axes: Axes, bars: Sequence[Bar], title: str) -> None:
    """A group a goal horizon; a marker with its interval a kind of actions."""
    horizons = list(dict.fromkeys(bar.goal_horizon for bar in bars))
    kinds = list(dict.fromkeys(bar.who for bar in bars))
    width = 0.7 / max(1, len(kinds))
    for number, who in enumerate(kinds):
        colour, marker = _LOOKS[who]
        mine = [bar for bar in bars if bar.who == who]
        places = [horizons.index(bar.goal_horizon) + (number - (len(kinds) - 1) / 2) * width for bar in mine]
        for place, bar in zip(places, mine, strict=True):
            if bar.low is not None and bar.high is not None:
                axes.plot([place, place], [bar.low, bar.high], color=colour, lw=2.2, alpha=0.55)
        axes.plot(places, [bar.value for bar in mine], ls="", marker=marker, ms=7, color=colour, label=WORDS[who])
    axes.set_xticks(range(len(horizons)), [str(horizon) for horizon in horizons])
    axes.set_xlim(-0.6, max(1, len(horizons)) - 0.4)
    axes.set_xlabel("Goal horizon, model steps")
    if bars:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _title(axes, title)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=INK, parse_math=False)


def _model_steps(outcome: ClipOutcome, who: str, statistics: Statistics, frameskip: int) -> NDArray[np.float64]:
    raw = np.asarray(outcome.actions[who], np.float64).reshape(-1, frameskip, statistics.size)
    return at_level(normalized(raw, statistics), "step")
