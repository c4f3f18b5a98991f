"""Reporters that need nothing else: none, and a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


class NullReporter:
    """Says nothing."""

    def report(
        self, step: int, metrics: Mapping[str, float], checkpoint: Path | None = None, notes: Sequence[str] = ()
    ) -> None:
        """Discard."""


class ListReporter:
    """Keeps every report, for notebooks and tests."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, dict[str, float], Path | None]] = []
        self.notes: list[str] = []

    def report(
        self, step: int, metrics: Mapping[str, float], checkpoint: Path | None = None, notes: Sequence[str] = ()
    ) -> None:
        """Append."""
        self.notes += notes
        self.reports.append((step, dict(metrics), checkpoint))
