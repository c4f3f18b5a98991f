"""NVIDIA cards of this machine by how free they are: one score of memory and utilisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pynvml
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEMORY_WEIGHT, IDLE_WEIGHT = 0.7, 0.3
GIB = 2**30
NO_DRIVER = "no NVIDIA GPU here: runs use the CPU"
_COLUMNS = ("index", "UUID", "name", "memory used", "total", "utilisation", "processes", "score")


class Nvml(Protocol):
    """The part of NVML that is asked; pynvml has it."""

    def nvmlInit(self) -> Any: ...  # noqa: N802
    def nvmlShutdown(self) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> Any: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, card: Any, /) -> Any: ...  # noqa: N802
    def nvmlDeviceGetName(self, card: Any, /) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, card: Any, /) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, card: Any, /) -> Any: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, card: Any, /) -> Any: ...  # noqa: N802


@dataclass(frozen=True)
class Card:
    """One card. What it does not tell is None.

    Args:
        used, total: bytes of memory.
        utilisation: in [0, 1], of the last sampling period.
    """

    index: int
    uuid: str
    name: str
    used: int | None
    total: int | None
    utilisation: float | None
    processes: int | None

    @property
    def free(self) -> int:
        """Bytes; 0 when unknown, so that nobody counts on them."""
        return 0 if self.used is None or not self.total else self.total - self.used

    @property
    def score(self) -> float:
        """0.7 x free memory + 0.3 x idleness, each a fraction; an unknown one counts as 0."""
        idle = 0.0 if self.utilisation is None else 1 - self.utilisation
        return MEMORY_WEIGHT * (self.free / self.total if self.total else 0.0) + IDLE_WEIGHT * idle


def find_cards(nvml: Nvml = pynvml) -> list[Card]:
    """All cards, the best first; none without a card or its driver."""
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError:  # no library, no driver, or no card
        return []
    try:
        cards = [_card(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()
    return sorted((card for card in cards if card is not None), key=lambda card: (-card.score, card.index))


def list_gpus(console: Console, *, quiet: bool = False, min_free_gb: float = 2.0, nvml: Nvml = pynvml) -> None:
    """Print a table, or with `quiet` only the UUIDs of cards with `min_free_gb` GiB free, as CUDA_VISIBLE_DEVICES takes them."""
    cards = find_cards(nvml)
    if not cards:
        (Console(stderr=True) if quiet else console).print(NO_DRIVER, highlight=False)
    elif quiet:
        for card in cards:
            if card.free >= min_free_gb * GIB:
                print(card.uuid, file=console.file)
    elif console.is_terminal:
        console.print(_table(cards), soft_wrap=True)
    else:
        for row in [_COLUMNS, *map(_row, cards)]:
            print("\t".join(row), file=console.file)


def _card(nvml: Nvml, index: int) -> Card | None:
    """None for a card that has fallen off the bus."""

    def ask(question: Callable[[Any], Any]) -> Any:
        """The answer, or None: a card may not support a question, or hide the answer in a container."""
        try:
            return question(handle)
        except pynvml.NVMLError:
            return None

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError:
        return None
    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    rates = ask(nvml.nvmlDeviceGetUtilizationRates)
    processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
    return Card(
        index=index,
        uuid=uuid,
        name=_text(ask(nvml.nvmlDeviceGetName) or "?"),
        used=None if memory is None else int(memory.used),
        total=None if memory is None else int(memory.total),
        utilisation=None if rates is None else rates.gpu / 100,
        processes=None if processes is None else len(processes),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older drivers' bindings give bytes


def _row(card: Card) -> tuple[str, ...]:
    return (
        str(card.index),
        card.uuid,
        card.name,
        "?" if card.used is None else f"{card.used / GIB:.1f} GiB",
        "?" if card.total is None else f"{card.total / GIB:.1f} GiB",
        "?" if card.utilisation is None else f"{card.utilisation:.0%}",
        "?" if card.processes is None else str(card.processes),
        f"{card.score:.2f}",
    )


def _table(cards: Sequence[Card]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=True)
    for card in cards:
        table.add_row(*map(Text, _row(card)))
    return table
