"""The token store against what else could hold tokens: random clips of 4 frames, frameskip 5, 196 x 384 float16, batches of 32.

python -m tests.benchmarks token_files

Each reader is a process of its own; they take turns batch by batch, so that what else the machine does falls on all.
`cold`: its pages were dropped before it opened its files (posix_fadvise), and what it then had from the disk stands beside it;
a disk may have a memory of its own that no guest can empty. `warm`: all was read before; wall time, and CPU time, which a
crowded machine changes less. Medians. The memory allocator is told to keep what it has (see `_reader`). zarr and lance are no
dependencies: without them their rows say so.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.benchmarks.row import Row
from wm.config.data import TokenFormat
from wm.data.token_files import TokenFiles

SHAPE = (196, 384)
EPISODES, FEWEST, MOST = 12, 100, 200  # episodes of how many frames
BATCH, FRAMES, SKIP = 32, 4, 5
COLD_BATCHES, WARM_BATCHES = 3, 60
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


@cache
def encoded() -> list[torch.Tensor]:
    """float32 (T, P, D), as an encoder gives them: channels with means far apart, as DINO's are, and noise that no codec shrinks."""
    torch.manual_seed(0)
    means = 4 * torch.randn(SHAPE[1])
    return [torch.randn(length, *SHAPE).add_(means) for length in lengths()]


def episodes() -> Iterator[np.ndarray]:
    """The same in float16."""
    return (tokens.half().numpy() for tokens in encoded())


def _ours(folder: Path, kept_as: TokenFormat, of: Sequence[int]) -> TokenFiles:
    source: Any = _Source(of)
    return TokenFiles(folder, source, "benchmark", kept_as=kept_as)


def _write_ours(folder: Path, kept_as: TokenFormat) -> None:
    store = _ours(folder, kept_as, lengths())
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
        Kind(OURS, lambda f: _write_ours(f, "float16"), lambda f: _ours(f, "float16", lengths()).read),
        Kind("ours, int8", lambda f: _write_ours(f, "int8"), lambda f: _ours(f, "int8", lengths()).read),
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
    warm_cpu_s: list[float]
    amplification: float


def _reader(name: str, folder: Path, asked: Connection) -> None:
    """A process that drops its pages, then answers each request for a random batch with (seconds, CPU seconds, bytes from disk)."""
    torch.set_num_threads(1)
    # As glibc is set, it gives a batch's memory back to the kernel or does not by a hair's breadth, and page faults then cost more
    # than any reader does: here it keeps it.
    for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        ctypes.CDLL(None).mallopt(option, 2**30)
    _drop_pages(folder)
    read, of, rng = KINDS[name].read(folder), lengths(), np.random.default_rng(1)
    window = (FRAMES - 1) * SKIP + 1
    while (what := asked.recv()) != "end":
        if what == "all":
            clips = [(e, first) for e in range(EPISODES) for first in range(0, of[e] - window + 1, SKIP)]
        else:
            chosen = rng.integers(EPISODES, size=BATCH).tolist()
            clips = [(e, int(rng.integers(of[e] - window + 1))) for e in chosen]
        began, cpu, disk = time.perf_counter(), time.process_time(), _bytes_from_disk()
        for first in range(0, len(clips), BATCH):
            np.stack([read(e, start + SKIP * np.arange(FRAMES)) for e, start in clips[first : first + BATCH]])
        asked.send((time.perf_counter() - began, time.process_time() - cpu, _bytes_from_disk() - disk))


def _readings(folders: Mapping[str, Path]) -> dict[str, Reading]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.stores"])
    pipes: dict[str, Connection] = {}
    for name, folder in folders.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_reader, args=(name, folder, theirs), daemon=True).start()

    def turns(what: str, count: int) -> dict[str, list[tuple[float, float, int]]]:
        answers: dict[str, list[tuple[float, float, int]]] = {name: [] for name in pipes}
        for _ in range(count):
            for name, pipe in pipes.items():
                pipe.send(what)
                answers[name].append(pipe.recv())
        return answers

    cold = turns("batch", COLD_BATCHES)
    turns("all", 1)
    warm = turns("batch", WARM_BATCHES)
    for pipe in pipes.values():
        pipe.send("end")
    asked = COLD_BATCHES * BATCH * FRAMES * math.prod(SHAPE) * 2
    return {
        name: Reading(
            [s for s, *_ in cold[name]],
            [s for s, *_ in warm[name]],
            [cpu for _, cpu, _ in warm[name]],
            sum(disk for *_, disk in cold[name]) / asked,
        )
        for name in pipes
    }


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
    """Seconds until all is on the disk, the better of two; and bytes there."""
    taken: list[float] = []
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.perf_counter()
        kind.write(folder)
        for path in _files(folder):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        taken.append(time.perf_counter() - began)
    return min(taken), sum(path.stat().st_size for path in _files(folder))


def token_files() -> list[Row]:
    """Random access warm and cold, writing, size on disk; then 10,000 episodes against one table."""
    encoded()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folders = {kind.name: root / str(n) for n, kind in enumerate(KINDS.values()) if find_spec(kind.needs)}
        written = {name: _written(KINDS[name], folder) for name, folder in folders.items()}
        readings = _readings(folders)
        rows: list[Row] = []
        for what, unit in (
            ("warm", "clips/s"),
            ("warm, CPU a clip", "ms"),
            ("cold", "clips/s"),
            ("written", "MB/s"),
            ("disk", "MB"),
        ):
            figures = {name: _figure(what, readings[name], *written[name]) for name in readings}
            for name in KINDS:
                if name == OURS:
                    continue
                theirs, note = figures.get(name, (math.nan, ": not installed"))
                rows.append(Row(what, f"{name}{note}", theirs, f"{OURS}{figures[OURS][1]}", figures[OURS][0], unit))
        return [*rows, _many_episodes(root)]


def _figure(what: str, reading: Reading, write_s: float, size: int) -> tuple[float, str]:
    note = f" (reads {reading.amplification:.1f} x)" if what == "cold" else ""
    values = {
        "warm": BATCH / float(np.median(reading.warm_s)),
        "warm, CPU a clip": 1e3 * float(np.median(reading.warm_cpu_s)) / BATCH,
        "cold": BATCH / float(np.median(reading.cold_s)),
        "written": sum(lengths()) * math.prod(SHAPE) * 2 / 1e6 / write_s,  # of float16 tokens, however they are kept
        "disk": size / 1e6,
    }
    return values[what], note


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
