"""A sweep as a terminal and a README show it."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.comparison import compare
from experiments.comparison_text import escape_markdown, failure_text, markdown_row
from experiments.metric_text import label
from experiments.sweep_record import SweepRecord
from experiments.sweep_text import (
    NOT_SAMPLED,
    count_states,
    failure_texts,
    format_objective,
    format_seed_values,
    format_setting,
    format_settings,
    short_names,
    verdict_texts,
)

TOP = 5


def render_sweep(record: SweepRecord, top: int = TOP) -> list[RenderableType]:
    """What a terminal of 80 columns shows: states, the best trials, failures, and what the best one is worth."""
    shown: list[RenderableType] = [Text(f"{record.name}: {count_states(record)}", style="bold")]
    if record.ranked:
        view = Table(title=_best_title(record, top), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        for head in ("Trial", label(record.objective), "By seed"):
            view.add_column(head, justify="right", no_wrap=head == "Trial")
        view.add_column("Settings", ratio=1)
        for trial in record.ranked[:top]:
            value = " ".join(part for part in format_objective(record, trial) if part)
            cells = [str(trial.number), value, format_seed_values(record, trial), format_settings(record, trial)]
            view.add_row(*(Text(cell) for cell in cells))
        shown.append(view)
    shown += [Text(f"- {failure}", style="red") for failure in failure_texts(record)]
    first, *others = verdict_texts(record)
    shown += [Text(first, style="bold"), *(Text(f"- {sentence}") for sentence in others)]
    failures, notes = _confirmation_limits(record)
    shown += [Text(f"- {failure}", style="red") for failure in failures]
    return [*shown, *(Text(f"- {note}", style="yellow") for note in notes)]


def to_markdown(record: SweepRecord, top: int = TOP) -> str:
    """The same for a README, with a column for every searched path."""
    lines = [f"**{escape_markdown(record.name)}**: {count_states(record)}", ""]
    if record.ranked:
        names = short_names(record.scales)
        heads = ["Trial", label(record.objective), "By seed", *names.values()]
        lines += [markdown_row(heads), "|" + "---:|" * 3 + "---|" * len(names)]
        for trial in record.ranked[:top]:
            value = " ".join(part for part in format_objective(record, trial) if part)
            cells = [str(trial.number), value, format_seed_values(record, trial)]
            cells += [format_setting(trial.params[path]) if path in trial.params else NOT_SAMPLED for path in names]
            lines.append(markdown_row(cells))
        lines += ["", f"*{escape_markdown(_best_title(record, top))}*", ""]
    failures, notes = _confirmation_limits(record)
    items = [*verdict_texts(record), *failure_texts(record), *failures, *notes]
    return "\n".join([*lines, *(f"- {escape_markdown(' '.join(item.split()))}" for item in items), ""])


def _best_title(record: SweepRecord, top: int) -> str:
    sought = "highest" if record.mode == "max" else "lowest"
    shown, measured = min(top, len(record.ranked)), len(record.ranked)
    return f"The {sought} {shown} of {measured} complete trials" if measured > 1 else "The only complete trial"


def _confirmation_limits(record: SweepRecord) -> tuple[list[str], list[str]]:
    if record.confirmation is None:
        return [], []
    table = compare(record.confirmation)
    return [f"Confirmation: {failure_text(run)}" for run in table.failures], table.notes
