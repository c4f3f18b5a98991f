"""Ways to damage a file of a data set; each returns the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Fault = Callable[[Path], Path]


def edit(key: str, change: Callable[[torch.Tensor], Any]) -> Fault:
    """Another tensor in KEY.pth."""

    def apply(folder: Path) -> Path:
        file = folder / f"{key}.pth"
        torch.save(change(torch.load(file, weights_only=True)), file)
        return file

    return apply


def remove(name: str) -> Fault:
    """Without the file."""

    def apply(folder: Path) -> Path:
        (folder / name).unlink()
        return folder / name

    return apply


def write(name: str, content: bytes) -> Fault:
    """Other bytes in it."""

    def apply(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return apply


def cut(name: str, kept: float) -> Fault:
    """Only the beginning of it."""

    def apply(folder: Path) -> Path:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * kept)])
        return folder / name

    return apply


def poisoned(row: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A number of an episode's second step."""

    def change(values: torch.Tensor) -> torch.Tensor:
        values[row, 1, 0] = value
        return values

    return change
