"""Ray Data: schedule rows -> read clips in tasks -> this rank's batches, in schedule order from any step on.

Each worker streams its own part of the schedule, so that the ratio and the order of clips are exact whatever the number of
workers (Ray Data's own splitting promises neither), and a resume only has to name a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, NamedTuple, Self, cast

import numpy as np
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from wm.config.experiment import ExperimentConfig
from wm.data.clip_reader import to_batch
from wm.training_run import RunClips
from wm.types import Batch

Fingerprints = tuple[tuple[int | None, str], ...]  # RunInputs.fingerprints, as something that can be hashed
Block = dict[str, np.ndarray]  # arrays of some steps, one row each
BLOCK_BYTES = 32 * 2**20  # handed over at a time, or one step; below what Ray Data would cut (and copy) again
BLOCK_STEPS = 64  # and no more of small steps: their clips are thousands of small arrays before they are one
SPAN_BYTES = 256 * 2**20  # of a task, or FIRST_STEPS; two are in the object store at a time
FIRST_STEPS = 20  # of the first task; each later one has twice the steps of the one before, up to SPAN_BYTES
SPAN_STEPS = 640  # and no more of small steps: an execution costs some 40 ms, and memory stays what it was

warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # see `_own`


@lru_cache(maxsize=4)
def open_clips(config_json: str, root: str, fingerprints: Fingerprints) -> RunClips:
    """A process opens each run's clips once."""
    return RunClips(ExperimentConfig.model_validate_json(config_json), Path(root), dict(fingerprints))


class ClipSource(NamedTuple):
    """Which clips a task reads: plain values, so that any process can open them.

    Args:
        config_json, root, fingerprints: what `open_clips` needs.
        rank, num_ranks: which part of each global batch.
    """

    config_json: str
    root: str
    fingerprints: Fingerprints
    rank: int
    num_ranks: int


class ClipDatasource(Datasource):
    """Rows are steps, in order; one read task reads the clips of all. One remote call, none before (RAY.md 4)."""

    def __init__(self, source: ClipSource, start: int, stop: int) -> None:
        super().__init__()
        self._source = source
        self._start, self._stop = start, stop

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before the first block."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One, whatever parallelism is asked for: its blocks come in order, each as soon as it is read."""
        metadata = BlockMetadata(num_rows=self._stop - self._start, size_bytes=None, exec_stats=None)
        return [ReadTask(partial(_read, self._source, self._start, self._stop), metadata)]


def _read(source: ClipSource, start: int, stop: int) -> Iterator[Any]:
    """Blocks of one step, two, four ... up to BLOCK_BYTES: the first is there soon, and a block costs some milliseconds."""
    clips = open_clips(source.config_json, source.root, source.fingerprints)
    most = min(max(1, BLOCK_BYTES // clips.step_bytes(start, source.rank, source.num_ranks)), BLOCK_STEPS)
    steps = 1
    while start < stop:
        last = min(start + min(steps, most), stop)
        arrays = clips.read_steps(start, last, source.rank, source.num_ranks)
        yield BlockAccessor.batch_to_block({"step": np.arange(start, last), **arrays})
        start, steps = last, 2 * steps


def stream_batches(
    source: ClipSource, start: int, cpus_per_task: float, clips: RunClips | None = None
) -> Iterator[Batch]:
    """One rank's batches of steps start, start + 1, ... to the end.

    Tokens are float16, in shared memory: `Batch.to` makes them float32. Spans of steps are read one after another, each by one
    task of a Ray Data execution of its own, and at most one beyond that in use. One execution over all steps would instead keep
    a thread of this process busy all the time that reading is ahead of training (a third of a core, and the interpreter's lock).

    Args:
        cpus_per_task: logical CPUs of a reading task.
        clips: those of `source`, where this process has opened them.

    Raises:
        RuntimeError: Ray Data gave a step out of order.
    """
    spans = _spans(clips or open_clips(source.config_json, source.root, source.fingerprints), source, start)
    with _Reading(source, spans, cpus_per_task) as reading:
        for first, stop in spans:
            expected = first
            while expected < stop:
                block = reading.next_block()
                for row, step in enumerate(block.pop("step")):
                    if step != expected:
                        raise RuntimeError(f"the stream gave step {step} where {expected} was due")
                    yield to_batch({key: _own(values[row]) for key, values in block.items()}, as_stored=True)
                    expected += 1
                del block
            reading.read_one_more()


def _own(values: np.ndarray) -> np.ndarray:
    """Shared memory can only be read, and writing to it ends the process: all but tokens, which `Batch.to` copies, is copied here."""
    return values if values.dtype == np.float16 else values.copy()


def _spans(clips: RunClips, source: ClipSource, start: int) -> list[tuple[int, int]]:
    """The first are short, so that training does not wait for a long one; the others fill SPAN_BYTES.

    In a span all batches have one shape.
    """
    spans: list[tuple[int, int]] = []
    steps = FIRST_STEPS
    for first, stop in clips.stretches(start):
        most = max(SPAN_BYTES // clips.step_bytes(first, source.rank, source.num_ranks), 1)
        low = first
        while low < stop:
            high = min(low + min(steps, most), stop)
            spans.append((low, high))
            low, steps = high, min(2 * steps, SPAN_STEPS)
    return spans


class _Reading:
    """A thread that reads span after span: two, and one more for each `read_one_more`. Blocks stay in the object store."""

    def __init__(self, source: ClipSource, spans: Sequence[tuple[int, int]], cpus_per_task: float) -> None:
        self._room = Semaphore(2)
        self._ready: SimpleQueue[Block | BaseException] = SimpleQueue()
        self._ended = False
        self._thread = Thread(target=self._read, args=(source, spans, cpus_per_task), name="clips", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self.read_one_more()
        self._thread.join()

    def next_block(self) -> Block:
        """Waits for it. Raises what reading it raised."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def read_one_more(self) -> None:
        """A span is used up."""
        self._room.release()

    def _read(self, source: ClipSource, spans: Sequence[tuple[int, int]], cpus_per_task: float) -> None:
        try:
            for first, stop in spans:
                self._room.acquire()
                if self._ended:
                    return
                for block in _read_span(source, first, stop, cpus_per_task):
                    if self._ended:
                        return
                    self._ready.put(block)
        except BaseException as error:
            self._ready.put(error)


def _read_span(source: ClipSource, start: int, stop: int, cpus_per_task: float) -> Iterator[Block]:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # One task at a time for each run: more would take CPUs from the other runs on this machine.
    context.execution_options.resource_limits = ExecutionResources(cpu=cpus_per_task)
    dataset = ray.data.read_datasource(
        ClipDatasource(source, start, stop), num_cpus=cpus_per_task, override_num_blocks=1
    )
    for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        yield cast(Block, block)
