"""The token store against what else could hold tokens: random clips of 4 frames, frameskip 5, 196 x 384 float16, batches of 32.

python -m tests.benchmarks token_files

Each reader runs in a process of its own, in turn, several rounds. `cold`: its files were written out and their pages dropped
(posix_fadvise), and what the process then had read from the disk stands beside it; a disk may have a memory of its own that
no guest can empty. `warm`: all of it was read once before. zarr and lance are no dependencies: without them their rows say so.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.benchmarks.row import Row
from wm.config.data import TokenFormat
from wm.data.token_files import TokenFiles

SHAPE = (196, 384)
EPISODES, FEWEST, MOST = 16, 100, 200  # episodes of how many frames
BATCH, FRAMES, SKIP = 32, 4, 5
COLD_BATCHES, WARM_BATCHES, ROUNDS = 3, 25, 4
MANY = 10_000  # episodes, where opening files is what costs
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


def episodes() -> Iterator[np.ndarray]:
    """(T, P, D) float16: channels with means far apart, as DINO's are, and noise that no codec can shrink."""
    for number, length in enumerate(lengths()):
        rng = np.random.default_rng(number)
        means = 4 * np.random.default_rng(0).normal(size=SHAPE[1]).astype(np.float32)
        yield (rng.standard_normal((length, *SHAPE), np.float32) + means).astype(np.float16)


def _ours(folder: Path, kept_as: TokenFormat, of: Sequence[int]) -> TokenFiles:
    source: Any = _Source(of)
    return TokenFiles(folder, source, "benchmark", kept_as=kept_as)


def _write_ours(folder: Path, kept_as: TokenFormat) -> None:
    store = _ours(folder, kept_as, lengths())
    for number, tokens in enumerate(episodes()):
        store.save(number, torch.from_numpy(tokens).float())


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

    slices = [
        safe_open(folder / f"{number}.safetensors", "np").get_slice("tokens")  # type: ignore[no-untyped-call]
        for number in range(EPISODES)
    ]
    return lambda episode, indices: np.stack([slices[episode][int(i)] for i in indices])


class Kind(NamedTuple):
    """One way to keep tokens; `needs` is what must be installed."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Read]
    needs: str = "numpy"


OURS, INT8 = "ours, float16", "ours, int8"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(OURS, lambda f: _write_ours(f, "float16"), lambda f: _ours(f, "float16", lengths()).read),
        Kind(INT8, lambda f: _write_ours(f, "int8"), lambda f: _ours(f, "int8", lengths()).read),
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


class Reading(NamedTuple):
    """Of one process: seconds a batch, and bytes that the cold batches had from the disk for each that they asked for."""

    cold_s: list[float]
    warm_s: list[float]
    amplification: float


def measure(name: str, folder: Path, round_: int) -> Reading:
    """Read random clips in this process, first with none of the pages in memory."""
    torch.set_num_threads(1)
    _drop_pages(folder)
    read, of, rng = KINDS[name].read(folder), lengths(), np.random.default_rng(100 + round_)
    window = (FRAMES - 1) * SKIP + 1

    def batch() -> np.ndarray:
        found = []
        for episode in rng.integers(EPISODES, size=BATCH).tolist():
            first = int(rng.integers(of[episode] - window + 1))
            found.append(read(episode, first + SKIP * np.arange(FRAMES)))
        return np.stack(found)

    def timed(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            began = time.perf_counter()
            assert batch().shape == (BATCH, FRAMES, *SHAPE)
            taken.append(time.perf_counter() - began)
        return taken

    before = _bytes_from_disk()
    cold = timed(COLD_BATCHES)
    asked = COLD_BATCHES * BATCH * FRAMES * math.prod(SHAPE) * 2
    amplification = (_bytes_from_disk() - before) / asked
    for episode, length in enumerate(of):
        for first in range(0, length - window + 1, window):
            read(episode, first + SKIP * np.arange(FRAMES))
    timed(5)
    return Reading(cold, timed(WARM_BATCHES), amplification)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _drop_pages(folder: Path) -> None:
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _bytes_from_disk() -> int:
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _written(kind: Kind, folder: Path) -> tuple[float, int]:
    """Seconds until all is on the disk, those of making the numbers left out; and bytes there."""
    began = time.perf_counter()
    for _ in episodes():
        pass
    making_s = time.perf_counter() - began
    folder.mkdir()
    began = time.perf_counter()
    kind.write(folder)
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - began - making_s, sum(path.stat().st_size for path in _files(folder))


def _processes() -> ProcessPoolExecutor:
    """A new process for each call, with the imports done and nothing read."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.stores"])
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


def token_files() -> list[Row]:
    """Write, random access cold and warm, size on disk; then 10,000 episodes against one table."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        kinds = [kind for kind in KINDS.values() if find_spec(kind.needs)]
        written = {kind.name: _written(kind, root / str(number)) for number, kind in enumerate(kinds)}
        readings: dict[str, list[Reading]] = {kind.name: [] for kind in kinds}
        with _processes() as pool:
            for round_ in range(ROUNDS):
                for number, kind in enumerate(kinds):  # in turn: what else the machine does falls on all
                    readings[kind.name].append(pool.submit(measure, kind.name, root / str(number), round_).result())
        rows: list[Row] = []
        for what in ("clips/s warm", "clips/s cold", "MB/s written", "MB on disk"):
            figures = {name: _figure(what, readings[name], *written[name]) for name in readings}
            unit = what.split()[0]
            for name in KINDS:
                if name == OURS:
                    continue
                if name not in figures:
                    rows.append(Row(what, f"{name}: not installed", math.nan, OURS, figures[OURS][0], unit))
                    continue
                (theirs, note), (ours, our_note) = figures[name], figures[OURS]
                rows.append(Row(what, f"{name}{note}", theirs, f"{OURS}{our_note}", ours, unit))
        return [*rows, _many_episodes(root)]


def _figure(what: str, readings: Sequence[Reading], write_s: float, size: int) -> tuple[float, str]:
    if what == "MB/s written":  # of float16 tokens, however they are kept
        return sum(lengths()) * math.prod(SHAPE) * 2 / 1e6 / write_s, ""
    if what == "MB on disk":
        return size / 1e6, ""
    if what == "clips/s warm":
        return BATCH / float(np.median([s for one in readings for s in one.warm_s])), ""
    amplification = float(np.median([one.amplification for one in readings]))
    return BATCH / float(np.median([s for one in readings for s in one.cold_s])), f" (reads {amplification:.1f} x)"


def _many_episodes(root: Path) -> Row:
    """Clips of 10,000 episodes, nearly each in a file that must be opened, against one table of all: files with holes, 150 GB."""
    frames, count = 100, math.prod(SHAPE)
    store = _ours(root / "many", "float16", [frames] * MANY)
    store.save(0, torch.zeros(frames, *SHAPE))
    first = store.path(0)
    size = first.stat().st_size
    header = first.read_bytes()[: size - frames * count * 2]
    for episode in range(MANY):
        store.path(episode).write_bytes(header)
        os.truncate(store.path(episode), size)
    table_file = root / "many.bin"
    table_file.touch()
    os.truncate(table_file, MANY * frames * count * 2)
    table = np.memmap(table_file, np.float16, "r", shape=(MANY * frames, *SHAPE))

    def one(read: Read, rng: np.random.Generator) -> float:
        clips = [(e, int(rng.integers(84)) + SKIP * np.arange(FRAMES)) for e in rng.integers(MANY, size=BATCH).tolist()]
        began = time.perf_counter()
        np.stack([read(*clip) for clip in clips])
        return time.perf_counter() - began

    from_table: list[float] = []
    from_files: list[float] = []
    for number in range(30):
        from_table.append(one(lambda e, i: table[e * frames + i], np.random.default_rng(number)))
        from_files.append(one(store.read, np.random.default_rng(1000 + number)))
    speeds = [BATCH / float(np.median(taken)) for taken in (from_table, from_files)]
    shutil.rmtree(root / "many")
    return Row(
        f"clips/s of {MANY} episodes, empty files", "memory map, one table", speeds[0], OURS, speeds[1], "clips/s"
    )
