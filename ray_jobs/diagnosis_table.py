"""A diagnosis for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from wm.evaluation.diagnosis import ROWS, Row, losses
from wm.evaluation.diagnosis_summary import MEASURES, Diagnosis
from wm.evaluation.statistics import Interval


def render_diagnosis(found: Diagnosis) -> list[RenderableType]:
    """Success row by row, measures, imagined beside real success, shifts, and the verdict."""
    shown: list[RenderableType] = [_chain(found)]
    if any(loss.spans for loss in losses(found.rows)):
        shown.append(Text("* rows between solve clearly less than this one and are passed over", style="dim"))
    if found.measures or found.error_ratio:
        shown.append(_measures(found))
    if found.agreement is not None:
        shown.append(_agreement(found))
    if found.shifts:
        shown.append(_shifts(found))
    shown += [Text(f"Not shown: {reason}", style="dim") for reason in found.dropped]
    first, *rest = found.verdict.words
    return [*shown, Text(first, style="bold"), *(Text(words) for words in rest)]


def _chain(found: Diagnosis) -> Table:
    view = _table(f"Goal horizon {found.goal_horizon}: where success is lost (simulator and model: {found.search})")
    view.add_column("row", no_wrap=True)
    for column in ("solved", "", "95 %", "lost, points"):
        view.add_column(column, justify="right", no_wrap=True)
    lost = {loss.lower: loss for loss in losses(found.rows)}
    for name, title in ROWS.items():
        if name not in found.rows:
            continue
        row = found.rows[name]
        here = ""
        if name in lost:
            loss = lost[name]
            ends = "" if loss.interval is None else f" ({_range(loss.interval)})"
            here = f"{100 * loss.value:.0f}{ends}{' *' if loss.spans else ''}"
        view.add_row(title, *_success(row), here)
    return view


def _measures(found: Diagnosis) -> Table:
    view = _table("Model and objective apart from any search")
    view.add_column("measure")
    for column in ("value", "95 %", "perfect"):
        view.add_column(column, justify="right", no_wrap=True)
    if found.error_ratio:
        ends = " ".join(f"{value:.2f}" for value in found.error_ratio)
        view.add_row("latent error / copying the start, recorded actions, by model step", ends, "", "0")
    for name, (what, perfect) in MEASURES.items():
        if name not in found.measures:
            continue
        measure, is_share = found.measures[name], name.startswith("cheaper")
        value = f"{100 * measure.value:.0f} %" if is_share else f"{measure.value:.2f}"
        ends = ""
        if measure.interval is not None:
            low, high = measure.interval.low, measure.interval.high
            ends = _range(measure.interval) if is_share else f"{low:.2f} to {high:.2f}"
        view.add_row(what, value, ends, perfect)
    return view


def _agreement(found: Diagnosis) -> Table:
    assert found.agreement is not None
    assert found.judge is not None
    view = _table(
        f"Plan and act in the model alone (success told from failure in {100 * found.judge.accuracy:.0f} % of true frames)"
    )
    view.add_column("problems", no_wrap=True)
    view.add_column("solved in the world", justify="right", no_wrap=True)
    view.add_column("not solved", justify="right", no_wrap=True)
    pair = found.agreement
    view.add_row("solved in imagination", str(pair.both), str(pair.imagined_only))
    view.add_row("not", str(pair.real_only), str(pair.neither))
    return view


def _shifts(found: Diagnosis) -> Table:
    view = _table("As evaluated, the world seen otherwise")
    view.add_column("shift", no_wrap=True)
    for column in ("solved", "", "95 %", "difference, points"):
        view.add_column(column, justify="right", no_wrap=True)
    view.add_row("none", *_success(found.rows["evaluated"]), "")
    for name, shift in found.shifts.items():
        ends = "" if shift.interval is None else f" ({_range(shift.interval)})"
        view.add_row(name, *_success(shift.row), f"{100 * shift.difference:+.0f}{ends}")
    return view


def _success(row: Row) -> tuple[str, str, str]:
    failed = f", {row.failures} failed" if row.failures else ""
    counts = f"{sum(row.solved.values())} of {len(row.solved)}{failed}"
    return counts, f"{100 * row.rate:.0f} %", _range(row.interval)


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1), min_width=len(title) + 2)
