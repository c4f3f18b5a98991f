"""Cards are ranked by what is free, whatever a card does not tell."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, NamedTuple

import pynvml
import pytest
from rich.console import Console

from ray_jobs.gpus import GIB, NO_DRIVER, find_cards, list_gpus


class Fake(NamedTuple):
    """A card; None is what it does not support."""

    uuid: str | None
    used: float | None
    total: float = 80
    busy: int | None = 0
    processes: int = 0
    name: str | bytes = "NVIDIA H100"


class FakeNvml:
    """NVML of some cards; None instead of cards is a machine without a driver."""

    def __init__(self, cards: list[Fake] | None) -> None:
        self.cards, self.is_open = cards, False

    def nvmlInit(self) -> None:
        if self.cards is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        assert self.cards is not None
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Fake:
        assert self.cards is not None
        return self.cards[index]

    def nvmlDeviceGetUUID(self, card: Fake, /) -> str:
        return told(card.uuid)

    def nvmlDeviceGetName(self, card: Fake, /) -> str | bytes:
        return card.name

    def nvmlDeviceGetMemoryInfo(self, card: Fake, /) -> Any:
        return SimpleNamespace(used=int(told(card.used) * GIB), total=int(card.total * GIB))

    def nvmlDeviceGetUtilizationRates(self, card: Fake, /) -> Any:
        return SimpleNamespace(gpu=told(card.busy))

    def nvmlDeviceGetComputeRunningProcesses(self, card: Fake, /) -> list[int]:
        return list(range(card.processes))


def told(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


MIXED = [
    Fake("GPU-full", used=79, busy=100, processes=3),
    Fake("GPU-half", used=40, busy=50, processes=1),
    Fake("GPU-small", used=0, total=24, name=b"NVIDIA A10G"),
    Fake("GPU-idle", used=1, busy=0),
    Fake("GPU-silent", used=None, busy=None),
    Fake(None, used=0),  # fallen off the bus
    Fake("GPU-noutil", used=0, busy=None),
]


def output(nvml: FakeNvml, width: int = 200, terminal: bool = False, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    list_gpus(console, nvml=nvml, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_scores() -> None:
    nvml = FakeNvml(MIXED)
    scores = {card.uuid: card.score for card in find_cards(nvml)}
    assert scores == pytest.approx(
        {
            "GPU-small": 1.0,
            "GPU-idle": 0.7 * 79 / 80 + 0.3,
            "GPU-noutil": 0.7,  # not known to be idle
            "GPU-half": 0.7 * 0.5 + 0.3 * 0.5,
            "GPU-full": 0.7 / 80,
            "GPU-silent": 0.0,
        }
    )
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert not nvml.is_open


def test_quiet_gives_uuids_with_memory_to_spare() -> None:
    assert output(FakeNvml(MIXED), quiet=True).split("\n") == ["GPU-small", "GPU-idle", "GPU-noutil", "GPU-half", ""]
    assert output(FakeNvml(MIXED), quiet=True, min_free_gb=30).split() == ["GPU-idle", "GPU-noutil", "GPU-half"]
    assert output(FakeNvml(MIXED), quiet=True, min_free_gb=1).split()[-1] == "GPU-full"
    assert output(FakeNvml(MIXED), quiet=True, min_free_gb=500) == ""


def test_lines_hold_everything() -> None:
    header, first, *_, last = output(FakeNvml(MIXED)).splitlines()
    assert header.split("\t")[:3] == ["index", "UUID", "name"]
    assert first.split("\t") == ["2", "GPU-small", "NVIDIA A10G", "0.0 GiB", "24.0 GiB", "0%", "0", "1.00"]
    assert last.split("\t") == ["4", "GPU-silent", "NVIDIA H100", "?", "?", "?", "0", "0.00"]


def test_table_on_a_terminal() -> None:
    shown = output(FakeNvml(MIXED), terminal=True)
    assert shown.index("GPU-small") < shown.index("GPU-full")
    assert "\t" not in shown


@pytest.mark.parametrize("cards", [None, []])
def test_without_a_gpu_it_is_one_line(cards: list[Fake] | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(FakeNvml(cards)) == NO_DRIVER + "\n"
    assert (
        output(FakeNvml(cards), quiet=True) == ""
    )  # CUDA_VISIBLE_DEVICES=$(wm gpus --quiet) must not become a sentence
    assert capsys.readouterr().err == NO_DRIVER + "\n"
