"""One line of the table."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One comparison within one run; ratio = base / ours.

    Args:
        unit: of both numbers.
    """

    name: str
    base: str
    base_value: float
    ours: str
    ours_value: float
    unit: str = "s"
