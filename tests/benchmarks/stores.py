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
from collections.abc import Mapping
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tests.benchmarks.row import Row
from tests.benchmarks.token_kinds import EPISODES, KINDS, OURS, SHAPE, Kind, Read, encoded, lengths, ours

BATCH, FRAMES, SKIP = 32, 4, 5
COLD_BATCHES, WARM_BATCHES = 3, 60
MANY = 10_000  # episodes, where opening files is what costs


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
    store = ours(root / "many", "float16", [frames] * MANY)
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
