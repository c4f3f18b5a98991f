"""A safetensors file of which a few rows are read at a time, each by its place in the file.

Not through a memory map: what is not in memory yet is then read with the kernel's guess of what follows, 2 to 10 times the
bytes asked for (tests/benchmarks/stores.py), and a file cut short ends the process instead of raising.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "I8": np.dtype("i1")}
_LENGTH_BYTES = 8  # of the header's length, which comes first


class _Place(NamedTuple):
    """Where a tensor is."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


class TensorFile:
    """Open until it is collected; any thread may read.

    Attributes:
        metadata: text to text, as it was saved.

    Raises:
        OSError: there is no such file.
        ValueError: it is no safetensors file of float16, float32 and int8 tensors, or it was cut short.

    Source: the format as the library `safetensors` describes it: eight bytes of length, a JSON header, the tensors.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        size = os.fstat(self._descriptor).st_size
        length = int.from_bytes(os.pread(self._descriptor, _LENGTH_BYTES, 0), "little")
        if not 0 < length <= size - _LENGTH_BYTES:
            raise ValueError(f"{path}: no safetensors file")
        begin = _LENGTH_BYTES + length
        try:
            header = json.loads(os.pread(self._descriptor, length, _LENGTH_BYTES))
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._places = {
                name: _Place(_DTYPES[said["dtype"]], tuple(said["shape"]), begin + said["data_offsets"][0])
                for name, said in header.items()
            }
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{path}: no safetensors file") from error
        if size < max((_end(place) for place in self._places.values()), default=0):
            raise ValueError(f"{path}: cut short")

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor. Raises ValueError when there is none of that name."""
        return self._place(name).shape

    def whole(self, name: str) -> np.ndarray:
        """A tensor. Raises ValueError as `rows`."""
        place = self._place(name)
        out = np.empty(place.shape, place.dtype)
        self._fill(out, place.offset)
        return out

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Some rows of a tensor, in this order; neighbours are read at once.

        Raises:
            IndexError: there is no such row.
            ValueError: there is no such tensor, or the file was cut short since it was opened.
        """
        place = self._place(name)
        count = place.shape[0]
        if len(indices) and (indices.min() < 0 or indices.max() >= count):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of {count}")
        out = np.empty((len(indices), *place.shape[1:]), place.dtype)
        row_bytes = place.dtype.itemsize * math.prod(place.shape[1:])
        for first, stop in _runs(indices):
            self._fill(out[first:stop], place.offset + int(indices[first]) * row_bytes)
        return out

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise ValueError(f"no tensor '{name}'")
        return self._places[name]

    def _fill(self, out: np.ndarray, offset: int) -> None:
        left = out.reshape(-1).view(np.uint8).data
        while left:  # one call gives at most 2 GiB
            got = os.preadv(self._descriptor, [left], offset)
            if got == 0:
                raise ValueError("cut short")
            left, offset = left[got:], offset + got


def _end(place: _Place) -> int:
    return place.offset + place.dtype.itemsize * math.prod(place.shape)


def _runs(indices: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, stop) of positions whose indices follow each other."""
    cuts = (np.flatnonzero(np.diff(indices) != 1) + 1).tolist()
    return zip([0, *cuts], [*cuts, len(indices)], strict=True) if len(indices) else iter(())
