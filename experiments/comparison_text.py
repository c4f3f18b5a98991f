"""A comparison as a terminal and a README show it."""

from __future__ import annotations

import re

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.comparison import ComparisonTable, Difference, Estimate, Row
from experiments.metric_text import NOT_AVAILABLE, count, format_value, is_success, label
from experiments.records import RunRecord


def format_interval(metric: str, estimate: Estimate) -> str:
    """How sure an estimate is: "[41, 80]" for a metric with problems, "± 0.03" over seeds in the same unit."""
    if estimate.num_problems > 1 and estimate.interval:
        scale = 100 if is_success(metric) else 1
        digits = ".0f" if is_success(metric) else ".3g"
        return f"[{scale * estimate.interval.low:{digits}}, {scale * estimate.interval.high:{digits}}]"
    if estimate.spread is None:
        return ""
    return f"± {format_value(metric, estimate.spread, like=estimate.value).split(' ')[0]}"


def format_cell(row: Row, metric: str) -> tuple[str, str]:
    """Value and certainty of one cell; "n/a" where the metric is missing or does not apply."""
    estimate = row.estimates.get(metric)
    if estimate is None:
        return NOT_AVAILABLE, ""
    return format_value(metric, estimate.value), format_interval(metric, estimate)


def render_text(table: ComparisonTable) -> list[RenderableType]:
    """What a terminal of 80 columns shows: a table per case, the named comparisons, failures and notes."""
    shown: list[RenderableType] = []
    for case in table.cases:
        view = Table(title=f"Case {case}", title_justify="left", box=box.SIMPLE, padding=0)
        for index, head in enumerate(["Variant", *(label(name) for name in table.columns)]):
            view.add_column(head, justify="right" if index else "left", no_wrap=not index)
        for row in table.rows_of(case):
            size = f"{count(row.num_seeds, 'seed')} x {row.num_problems}" if row.num_problems else "no problems"
            cells = [f"{row.variant}\n{f'{row.num_problems} problems' if row.is_control else size}"]
            cells += ["\n".join(format_cell(row, name)) for name in table.columns]
            view.add_row(*(Text(cell) for cell in cells), style="dim" if row.is_control else None)
        shown.append(view)
    if table.differences:
        shown.append(Text("Named comparisons", style="bold"))
    shown += [Text(f"- {_placed(table, item)}", style="bold" if item.settled else "") for item in table.differences]
    shown += [Text(f"- {failure_text(run)}", style="red") for run in table.failures]
    shown += [Text(f"- {note}", style="yellow") for note in table.notes]
    return [*shown, Text(table.caption, style="dim")]


def to_markdown(table: ComparisonTable) -> str:
    """The same for a README: a table per case, then lists."""
    lines: list[str] = []
    heads = ["Variant", "Seeds", "Problems", *(label(name) for name in table.columns)]
    for case in table.cases:
        lines += [f"**{escape_markdown(case)}**", "", markdown_row(heads), "|---|" + "---:|" * (len(heads) - 1)]
        for row in table.rows_of(case):
            counts = ["-" if row.is_control else str(row.num_seeds), str(row.num_problems or "-")]
            values = [" ".join(part for part in format_cell(row, name) if part) for name in table.columns]
            lines.append(markdown_row([row.variant, *counts, *values]))
        lines.append("")
    items = [_placed(table, difference) for difference in table.differences]
    items += [failure_text(run) for run in table.failures] + table.notes
    lines += [f"- {escape_markdown(item)}" for item in items] + [""] * bool(items) + [f"*{table.caption}*", ""]
    return "\n".join(lines)


def standings(table: ComparisonTable, case: str) -> str:
    """Where the variants of a case stand: "align 45 % [20, 71], align_recon 60 %"; empty without any number."""
    rows = [row for row in table.rows_of(case) if table.metric in row.estimates]
    return ", ".join(
        f"{row.variant} {' '.join(part for part in format_cell(row, table.metric) if part)}" for row in rows
    )


def failure_text(run: RunRecord) -> str:
    """A failed run in one line."""
    return f"{run.variant} ({run.case}), seed {run.seed}: {run.status}, {run.failure or 'no reason recorded'}"


def _placed(table: ComparisonTable, difference: Difference) -> str:
    return difference.verdict if len(table.cases) == 1 else f"{difference.case}: {difference.verdict}"


def markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    return re.sub(r"([|*_<])", r"\\\1", text)
