"""Ways to keep the tokens of some episodes: how each writes them, and how it reads the frames of a clip.

zarr and lance are no dependencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from wm.config.data import TokenFormat
from wm.data.token_files import TokenFiles

SHAPE = (196, 384)
EPISODES, FEWEST, MOST = 12, 100, 200  # episodes of how many frames
Read = Callable[[int, np.ndarray], np.ndarray]  # episode, frames -> (n, P, D) float16


class _Source:
    """As much of a source as the store looks at."""

    name = fingerprint = "benchmark"

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)


def lengths() -> list[int]:
    return np.random.default_rng(0).integers(FEWEST, MOST, EPISODES).tolist()


@cache
def encoded() -> list[torch.Tensor]:
    """float32 (T, P, D), as an encoder gives them: channels with means far apart, as DINO's are, and noise that no codec shrinks."""
    torch.manual_seed(0)
    means = 4 * torch.randn(SHAPE[1])
    return [torch.randn(length, *SHAPE).add_(means) for length in lengths()]


def episodes() -> Iterator[np.ndarray]:
    """The same in float16."""
    return (tokens.half().numpy() for tokens in encoded())


def ours(folder: Path, kept_as: TokenFormat, of: Sequence[int]) -> TokenFiles:
    source: Any = _Source(of)
    return TokenFiles(folder, source, "benchmark", kept_as=kept_as)


def _write_ours(folder: Path, kept_as: TokenFormat) -> None:
    store = ours(folder, kept_as, lengths())
    for number, tokens in enumerate(encoded()):
        store.save(number, tokens)


def _write_npy(folder: Path) -> None:
    for number, tokens in enumerate(episodes()):
        np.save(folder / f"{number}.npy", tokens)


def _read_npy(folder: Path) -> Read:
    maps = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(EPISODES)]
    return lambda episode, indices: maps[episode][indices]


def _write_table(folder: Path) -> None:
    shape = (sum(lengths()), *SHAPE)
    table, first = np.lib.format.open_memmap(folder / "table.npy", "w+", np.float16, shape), 0
    for tokens in episodes():
        table[first : first + len(tokens)] = tokens
        first += len(tokens)
    table.flush()


def _firsts() -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths())])


def _read_table(folder: Path) -> Read:
    table, firsts = np.load(folder / "table.npy", mmap_mode="r"), _firsts()
    return lambda episode, indices: table[firsts[episode] + indices]


def _write_hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "tokens.h5", "w") as file:
        for number, tokens in enumerate(episodes()):
            file.create_dataset(str(number), data=tokens)


def _read_hdf5(folder: Path) -> Read:
    import h5py

    file = h5py.File(folder / "tokens.h5", "r")
    sets: list[Any] = [file[str(number)] for number in range(EPISODES)]
    # A slice with a step is faster in h5py than a list of indices.
    return lambda episode, indices: sets[episode][indices[0] : indices[-1] + 1 : SKIP]


def _write_zarr(folder: Path, compressors: Any) -> None:
    import zarr

    group: Any = zarr.open_group(folder / "tokens.zarr", mode="w")
    for number, tokens in enumerate(episodes()):
        made = group.create_array(
            str(number), shape=tokens.shape, chunks=(1, *SHAPE), dtype="float16", compressors=compressors
        )
        made[:] = tokens


def _read_zarr(folder: Path) -> Read:
    import zarr

    group: Any = zarr.open_group(folder / "tokens.zarr", mode="r")
    arrays = [group[str(number)] for number in range(EPISODES)]
    return lambda episode, indices: arrays[episode][indices[0] : indices[-1] + 1 : SKIP]


def _arrow_rows(tokens: np.ndarray) -> Any:
    import pyarrow as pa

    flat = pa.array(tokens.reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, math.prod(SHAPE))
    return pa.record_batch([rows], names=["tokens"])


def _arrow_values(column: Any) -> np.ndarray:
    flat = column.flatten()
    return flat.to_numpy(zero_copy_only=True).reshape(-1, *SHAPE)


def _write_arrow(folder: Path) -> None:
    import pyarrow as pa

    for number, tokens in enumerate(episodes()):
        rows = _arrow_rows(tokens)
        with pa.OSFile(str(folder / f"{number}.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_batch(rows)


def _read_arrow(folder: Path) -> Read:
    import pyarrow as pa

    opened = [pa.ipc.open_file(pa.memory_map(str(folder / f"{number}.arrow"))) for number in range(EPISODES)]
    values = [_arrow_values(file.get_batch(0).column(0)) for file in opened]
    return lambda episode, indices: values[episode][indices]


def _write_lance(folder: Path) -> None:
    import lance
    import pyarrow as pa

    batches = (_arrow_rows(tokens) for tokens in episodes())
    schema = pa.schema([("tokens", pa.list_(pa.float16(), math.prod(SHAPE)))])
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(folder / "tokens.lance"))


def _read_lance(folder: Path) -> Read:
    import lance

    table, firsts = lance.dataset(str(folder / "tokens.lance")), _firsts()

    def read(episode: int, indices: np.ndarray) -> np.ndarray:
        rows = table.take((firsts[episode] + indices).tolist(), columns=["tokens"])
        return _arrow_values(rows.column("tokens").combine_chunks())

    return read


def _write_safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    for number, tokens in enumerate(episodes()):
        save_file({"tokens": tokens}, folder / f"{number}.safetensors")


def _read_safetensors(folder: Path) -> Read:
    from safetensors import safe_open

    files: list[Any] = [safe_open(folder / f"{number}.safetensors", "np") for number in range(EPISODES)]
    slices = [file.get_slice("tokens") for file in files]
    return lambda episode, indices: np.stack([slices[episode][int(i)] for i in indices])


class Kind(NamedTuple):
    """One way to keep tokens; `needs` is what must be installed."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Read]
    needs: str = "numpy"


OURS = "ours, float16"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, lambda f: _write_ours(f, "float16"), lambda f: ours(f, "float16", lengths()).read),
        Kind("ours, int8", lambda f: _write_ours(f, "int8"), lambda f: ours(f, "int8", lengths()).read),
        Kind("memory map, .npy an episode", _write_npy, _read_npy),
        Kind("memory map, one table", _write_table, _read_table),
        Kind("Arrow IPC, memory map", _write_arrow, _read_arrow, "pyarrow"),
        Kind("safetensors' own reader", _write_safetensors, _read_safetensors, "safetensors"),
        Kind("HDF5, contiguous", _write_hdf5, _read_hdf5, "h5py"),
        Kind("zarr, a chunk a frame", lambda f: _write_zarr(f, None), _read_zarr, "zarr"),
        Kind("zarr, its compression", lambda f: _write_zarr(f, "auto"), _read_zarr, "zarr"),
        Kind("Lance", _write_lance, _read_lance, "lance"),
    )
}
