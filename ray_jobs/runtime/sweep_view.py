"""The live table of a sweep: its trials, the best so far, the time left. Plain lines when nobody watches a terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ray_jobs.runtime.placement import Placement
from ray_jobs.runtime.progress import format_s

_LINE_EVERY_S = 15.0
_ROWS = 12  # finished trials shown; the report has all
_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red", "running": "cyan"}


@dataclass
class _Row:
    state: str = "running"
    doing: str = "starting"
    done: float = 0.0
    began: float = field(default_factory=lambda: time.monotonic())
    first: tuple[float, float] | None = None  # (when, done) at the first sign of work
    metric: float | None = None
    value: float | None = None
    seconds: float | None = None
    note: str = ""


def _expected_s(row: _Row) -> float | None:
    """A running trial's whole time: its start, which is no work, and the rest at the rate since."""
    now = time.monotonic()
    if row.first is None or row.done <= row.first[1]:
        return None
    when, done = row.first
    return when - row.began + (1.0 - done) * (now - when) / (row.done - done)


class SweepView:
    """What is known of every trial, shown while it changes.

    Args:
        num_trials: in all; finished: those of earlier starts.
        at_once: how many run side by side.
        better: whether a first objective beats a second.
    """

    def __init__(
        self,
        console: Console,
        objective: str,
        metric: str | None,
        num_trials: int,
        finished: int,
        placement: Placement,
        maximize: bool,
    ) -> None:
        self._console = console if console.quiet else Console(file=sys.stdout)
        self._objective, self._metric = objective, metric
        self._num_trials, self._finished, self._at_once = num_trials, finished, placement.runs_at_once
        gpus = f", {placement.gpus_per_run:g} GPU" if placement.gpus_per_run else ""
        self._resources = f"{placement.cpus_per_run:.2f} CPU{gpus}"
        self._sign = 1.0 if maximize else -1.0
        self._best: tuple[int, float] | None = None
        self._rows: dict[int, _Row] = {}
        self._said = time.monotonic()
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)

    def start(self) -> None:
        """Show."""
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()

    def known(self, number: int, value: float) -> None:
        """A complete trial of an earlier start."""
        self._consider(number, value)

    def running(self, number: int, doing: str, done: float, metric: float | None = None) -> None:
        """`doing` in words; `done` in [0, 1] of the whole trial."""
        row = self._rows.setdefault(number, _Row())
        row.state, row.doing, row.done = "running", doing, done
        if row.first is None and done > 0:
            row.first = (time.monotonic(), done)
        row.metric = row.metric if metric is None else metric
        if self._live is None and time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"  {self._summary()}", highlight=False, soft_wrap=True)

    def ended(
        self, number: int, state: str, value: float | None = None, seconds: float | None = None, note: str = ""
    ) -> None:
        """A trial's end."""
        row = self._rows.setdefault(number, _Row())
        row.state, row.doing, row.done = state, "", 1.0
        row.value, row.seconds, row.note = value, seconds, note
        if value is not None:
            self._consider(number, value)
        took = f" after {format_s(seconds)}" if seconds is not None else ""
        what = f" {self._objective} {value:.4g}" if value is not None else ""
        text = f"  trial {number}: {state}{took}{what}{f' ({note})' if note else ''}"
        if self._live is None:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _consider(self, number: int, value: float) -> None:
        if self._best is None or self._sign * value > self._sign * self._best[1]:
            self._best = (number, value)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, from what trials took or are about to take; None while nothing tells."""
        rows = self._rows.values()
        took = [row.seconds for row in rows if row.state in ("complete", "pruned") and row.seconds]
        if len(took) < self._at_once:
            took += [seconds for row in rows if row.state == "running" and (seconds := _expected_s(row)) is not None]
        if not took:
            return None
        unfinished = self._num_trials - self._finished - sum(row.state != "running" for row in rows)
        work = unfinished - sum(row.done for row in rows if row.state == "running")
        return max(0.0, work * mean(took) / max(1, min(self._at_once, unfinished)))

    def _summary(self) -> str:
        ended = self._finished + sum(row.state != "running" for row in self._rows.values())
        parts = [f"{ended} of {self._num_trials} trials"]
        for number, row in self._rows.items():
            if row.state == "running":
                metric = f", {self._metric} {row.metric:.3f}" if row.metric is not None else ""
                parts.append(f"trial {number}: {row.doing}{metric}")
        if self._best is not None:
            parts.append(f"best so far: trial {self._best[0]} with {self._best[1]:.4g}")
        if self.left_s is not None:
            parts.append(f"about {format_s(self.left_s)} left")
        return "; ".join(parts)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "state", "step", self._metric or "", self._objective, "resources", "time"):
            table.add_column(title, no_wrap=title != "step")
        shown = [n for n, row in self._rows.items() if row.state != "running"][-_ROWS:]
        shown += [n for n, row in self._rows.items() if row.state == "running"]
        for number in shown:
            row = self._rows[number]
            table.add_row(
                str(number),
                Text(row.state, _STYLES.get(row.state, "")),
                row.doing or row.note,
                "" if row.metric is None else f"{row.metric:.3f}",
                "" if row.value is None else f"{row.value:.4g}",
                self._resources if row.state == "running" else "",
                "" if row.seconds is None else format_s(row.seconds),
            )
        return Group(table, Text(self._summary(), "dim"))
