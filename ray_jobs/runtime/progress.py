"""Progress with an estimate of the time left: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 10.0


class Stage:
    """One long step and its parts."""

    def __init__(self, console: Console, title: str, unit: str) -> None:
        self.title = title
        self._unit = unit
        self._console = console
        self._said = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._parts: dict[str, tuple[float, float]] = {}
        self._notes: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(f"{unit} {{task.fields[note]}}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def update(self, done: float, total: float, part: str = "", note: str = "") -> None:
        """`done` of `total` of a part; parts appear as they are named."""
        self._parts[part], self._notes[part] = (done, total), note
        if self._bars is not None:
            if part not in self._tasks:
                self._tasks[part] = self._bars.add_task(part or self.title, total=total, note=note)
            self._bars.update(self._tasks[part], completed=done, total=total, note=note)
        elif time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line that stays, above the bars where there are some."""
        console = self._console if self._bars is None else self._bars.console
        console.print(f"   {text}", highlight=False, soft_wrap=True, markup=False)

    def _line(self) -> str:
        done, total = (sum(values) for values in zip(*self._parts.values(), strict=True))
        now = time.monotonic()
        # The rate since the first sign of work: starting processes says nothing about how long the work takes.
        if self._first is None and done > 0:
            self._first = (now, done)
        left = ""
        if self._first is not None and done > self._first[1]:
            rate = (done - self._first[1]) / (now - self._first[0])
            left = f", about {format_s((total - done) / rate)} left"
        notes = "; ".join(f"{part} {note}" for part, note in self._notes.items() if part and note)
        return f"  {self.title}: {done:g} of {total:g} {self._unit}{left}{f' ({notes})' if notes else ''}"

    def start(self) -> None:
        """Show."""
        if self._bars is not None:
            self._bars.start()

    def stop(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()


class Narrator:
    """Says what is happening, and keeps how long each step took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._count = 0

    @contextmanager
    def step(self, title: str, unit: str = "") -> Iterator[Stage]:
        """One of the job's steps, timed; the seconds of a repeated one add up."""
        self._count += 1
        self.console.print(f"[bold]{self._count}. {title}[/bold]", highlight=False)
        # A console of the stage's own, bound to today's stdout: Ray's printing is sent elsewhere while Tune runs.
        console = self.console if self.console.quiet else Console(file=sys.stdout)
        stage = Stage(console, title, unit)
        began = time.monotonic()
        stage.start()
        try:
            yield stage
        finally:
            stage.stop()
            took = time.monotonic() - began
            self.seconds[title] = self.seconds.get(title, 0.0) + took
        self.console.print(f"   done in {format_s(took)}", highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(f"   {text}", highlight=False, soft_wrap=True)


def format_s(seconds: float) -> str:
    """'8.2 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
