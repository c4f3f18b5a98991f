"""Ways to damage a file of a data set; each returns the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


def info(**changes: Any) -> Fault:
    """Other entries in a LeRobot data set's info.json."""

    def apply(folder: Path) -> Path:
        told = json.loads((folder / "meta/info.json").read_text())
        (folder / "meta/info.json").write_text(json.dumps({**told, **changes}))
        return folder / "meta/info.json"

    return apply


def column(file: str, key: str, change: Callable[[np.ndarray], Any]) -> Fault:
    """A column of numbers in a parquet file, changed."""

    def apply(folder: Path) -> Path:
        table = pq.read_table(folder / file)
        values = np.array(table[key].to_pylist())
        new = change(values)
        array = pa.array(list(new) if isinstance(new, np.ndarray) and new.ndim > 1 else new)
        pq.write_table(table.set_column(table.schema.get_field_index(key), key, array), folder / file)
        return folder / file

    return apply


def at(position: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[position] = value
        return values

    return change
