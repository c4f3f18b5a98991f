"""An encoder beside its controls, world by world: scores -> frame (a list of cells) -> Markdown, or a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT

from experiments.figures import COLOURS, INK, MARKERS
from wm.evaluation.probe_scores import ProbeScores, resampled
from wm.evaluation.statistics import LEVEL, NUM_RESAMPLES

MEAN = "mean"  # the row over all worlds that have a metric
HEADS = {
    "state_r2": "State R²",
    "goal_rank": "Goal rank, same episode",
    "goal_rank_fresh": "Goal rank, fresh states",
    "time_neighbour": "Nearest in time",
    "shift_neighbour": "Nearest under shifts",
}
BOUNDED = {"state_r2": (-0.25, 1.03), "goal_rank": (-0.25, 1.03), "goal_rank_fresh": (-0.25, 1.03)}
_SAME = 5e-4  # nearer than this to the best: as good


@dataclass(frozen=True)
class EncoderCell:
    """One encoder in one world by one metric.

    Args:
        world: a source, or `MEAN`.
        order: of the encoder; 0 is the judged one.
        low, high: ends of the interval over held-out episodes.
        ahead: the judged encoder less this one, and the ends of its interval; None for the judged one itself.
        chance: what drawing blindly would give; None where that means nothing.
    """

    metric: str
    world: str
    encoder: str
    order: int
    value: float
    low: float
    high: float
    is_best: bool
    ahead: tuple[float, float, float] | None
    chance: float | None


def encoder_frame(
    scores: Mapping[str, ProbeScores], metrics: Sequence[str] = tuple(HEADS), num_resamples: int = NUM_RESAMPLES
) -> list[EncoderCell]:
    """Cells of every metric, world and encoder that has a score; the first encoder is the judged one.

    Intervals are percentiles of a bootstrap over held-out episodes, each world's drawn for itself and alike for all encoders.
    They say nothing about other training episodes or another seed of the encoder.
    """
    frame: list[EncoderCell] = []
    (subject, *_) = scores.values()
    for metric in metrics:
        worlds = [
            name for name in subject.scores if all(metric in each.scores.get(name, {}) for each in scores.values())
        ]
        rows = [(world, [world]) for world in worlds] + ([(MEAN, worlds)] if len(worlds) > 1 else [])
        for world, of in rows:
            frame += _cells(scores, metric, world, of, num_resamples)
    return frame


def _cells(
    scores: Mapping[str, ProbeScores], metric: str, world: str, of: list[str], num_resamples: int
) -> list[EncoderCell]:
    subject = next(iter(scores.values()))
    values = {name: float(np.mean([each.value(source, metric) for source in of])) for name, each in scores.items()}
    chances = [subject.chance[source].get(f"{metric}_chance") for source in of]
    known = [chance for chance in chances if chance is not None]
    cells: list[EncoderCell] = []
    for order, (name, each) in enumerate(scores.items()):
        low, high = _ends(resampled(each, metric, of, None, num_resamples, seed=0))
        ahead = None
        if order:
            ends = _ends(resampled(subject, metric, of, each, num_resamples, seed=0))
            ahead = values[next(iter(scores))] - values[name], *ends
        is_best = values[name] >= max(values.values()) - _SAME
        chance = float(np.mean(known)) if known else None
        cells.append(EncoderCell(metric, world, name, order, values[name], low, high, is_best, ahead, chance))
    return cells


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def to_markdown(frame: Sequence[EncoderCell]) -> str:
    """A table for each metric, worlds as rows; the best in bold; how far the judged encoder is ahead of each other one."""
    lines: list[str] = []
    for metric in dict.fromkeys(cell.metric for cell in frame):
        cells = [cell for cell in frame if cell.metric == metric]
        encoders = list(dict.fromkeys(cell.encoder for cell in cells))
        judged, others = encoders[0], encoders[1:]
        has_chance = any(cell.chance is not None for cell in cells)
        heads = [HEADS.get(metric, metric), *encoders, *(f"{judged} - {name}" for name in others)]
        heads += ["chance"] * has_chance
        lines += [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
        for world in dict.fromkeys(cell.world for cell in cells):
            row = {cell.encoder: cell for cell in cells if cell.world == world}
            texts = [world, *(_value(row[name]) for name in encoders), *(_ahead(row[name]) for name in others)]
            texts += [_number(next(iter(row.values())).chance)] * has_chance
            lines.append(f"| {' | '.join(texts)} |")
        lines.append("")
    return "\n".join([*lines, caption(frame)]) + "\n"


def shortfalls(frame: Sequence[EncoderCell]) -> list[str]:
    """Where the judged encoder is not ahead, and by how much: a sentence each."""
    judged = {(cell.metric, cell.world): cell for cell in frame if cell.order == 0}
    found: list[str] = []
    for cell in frame:
        if cell.ahead is not None and cell.ahead[0] <= 0:
            own, head = judged[cell.metric, cell.world], HEADS.get(cell.metric, cell.metric)
            found.append(
                f"{cell.world}, {head}: {own.encoder} {own.value:.3f}, {cell.encoder} {cell.value:.3f} ({_ahead(cell)})"
            )
    return found


def draw_encoders(frame: Sequence[EncoderCell]) -> Figure:
    """Worlds as rows, metrics as columns: each encoder's score and interval; dashed is chance, an arrow a score further left."""
    metrics, worlds = (list(dict.fromkeys(getattr(cell, key) for cell in frame)) for key in ("metric", "world"))
    worlds.sort(key=lambda name: name == MEAN)
    count = len({cell.encoder for cell in frame})
    figure = Figure(
        figsize=(1.4 + 2.35 * len(metrics), 1.1 + 0.52 * len(worlds)), layout="constrained", facecolor="white"
    )
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        least, most = BOUNDED.get(metric, (-0.03, 1.03))  # an R² far below 0 says no more than one below 0
        for cell in (cell for cell in frame if cell.metric == metric):
            height = worlds.index(cell.world) + 0.17 * (cell.order - (count - 1) / 2)
            colour, marker = COLOURS[cell.order % len(COLOURS)], MARKERS[cell.order % len(MARKERS)]
            axes.plot([cell.low, cell.high], [height, height], color=colour, lw=1.6, alpha=0.5)
            axes.plot([max(cell.value, least)], [height], ls="", marker=marker, ms=5, color=colour, label=cell.encoder)
            if cell.value < least:
                axes.plot([least + 0.06], [height], ls="", marker=CARETLEFT, ms=5, color=colour)
            if cell.chance is not None and cell.order == 0:
                row = worlds.index(cell.world)
                axes.plot([cell.chance] * 2, [row - 0.4, row + 0.4], color=INK, lw=0.9, ls=(0, (2, 2)), alpha=0.6)
        axes.set_title(HEADS.get(metric, metric), loc="left", fontsize=10, color=INK, parse_math=False)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, least - 0.03), min(max(high, 0.5), most))
        axes.grid(axis="x", color=INK, alpha=0.14, lw=0.8)
        axes.tick_params(colors=INK, labelsize=9)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(worlds)), worlds, parse_math=False)
    panels[0].set_ylim(len(worlds) - 0.45, -0.55)
    named = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(
        named.values(), named, loc="outside lower center", ncols=count, frameon=False, fontsize=9, labelcolor=INK
    )
    return figure


def caption(frame: Sequence[EncoderCell]) -> str:
    """What the numbers and the intervals are, in words."""
    judged = frame[0].encoder
    return (
        f"Held-out episodes. In bold the best of a row; differences are {judged} less the other, with the "
        f"{LEVEL:.0%} interval of a bootstrap over held-out episodes. docs/metrics.md defines each number."
    )


def _value(cell: EncoderCell) -> str:
    return f"**{cell.value:.3f}**" if cell.is_best else f"{cell.value:.3f}"


def _ahead(cell: EncoderCell) -> str:
    value, low, high = cell.ahead or (0.0, 0.0, 0.0)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
