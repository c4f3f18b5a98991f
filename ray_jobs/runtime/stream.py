"""Ray Data: schedule rows -> read clips in tasks -> this rank's batches, in schedule order from any step on.

Each worker streams its own part of the schedule, so that the ratio and the order of clips are exact whatever the number of
workers (Ray Data's own splitting promises neither), and a resume only has to name a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from wm.config.experiment import ExperimentConfig
from wm.data.clip_reader import to_batch
from wm.training_run import RunClips
from wm.types import Batch

STEPS_PER_TASK = 20  # rows of a block: large enough that a task's overhead vanishes, small enough to start soon
Fingerprints = tuple[tuple[int | None, str], ...]  # RunInputs.fingerprints, as something that can be hashed
SPAN_BYTES = 32 * 2**20  # of one span; two are in the object store at a time


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
    """Rows are steps; a read task reads the clips of its steps. One remote call for a block, none before (RAY.md 4)."""

    def __init__(self, source: ClipSource, start: int, stop: int) -> None:
        super().__init__()
        self._source = source
        self._spans = [(first, min(first + STEPS_PER_TASK, stop)) for first in range(start, stop, STEPS_PER_TASK)]

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before the first block."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task for each span, whatever parallelism is asked for."""
        return [
            ReadTask(
                partial(_read, self._source, first, stop),
                BlockMetadata(num_rows=stop - first, size_bytes=None, exec_stats=None),
            )
            for first, stop in self._spans
        ]


def _read(source: ClipSource, first: int, stop: int) -> Iterable[Any]:
    clips = open_clips(source.config_json, source.root, source.fingerprints)
    read = [clips.read(step, source.rank, source.num_ranks) for step in range(first, stop)]
    arrays = {key: np.stack([one[key] for one in read]) for key in read[0]}
    yield BlockAccessor.batch_to_block({"step": np.arange(first, stop), **arrays})


def stream_batches(source: ClipSource, start: int, cpus_per_task: float) -> Iterator[Batch]:
    """One rank's batches of steps start, start + 1, ... to the end.

    Spans of steps are read whole, one ahead of the one in use. Ray Data's streaming executor would instead keep a thread of
    this process busy all the time that reading is ahead of training (a third of a core here, and the interpreter's lock).

    Args:
        cpus_per_task: logical CPUs of a reading task.

    Raises:
        RuntimeError: Ray Data gave a step out of order.
    """
    spans = _spans(source, start)
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = [reader.submit(_read_span, source, first, stop, cpus_per_task) for first, stop in spans[:1]]
        for number, (first, _) in enumerate(spans):
            dataset = coming.pop().result()
            if number + 1 < len(spans):
                coming.append(reader.submit(_read_span, source, *spans[number + 1], cpus_per_task))
            rows: Iterable[Any] = dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)
            for expected, row in enumerate(rows, start=first):
                if int(row["step"][0]) != expected:
                    raise RuntimeError(f"the stream gave step {int(row['step'][0])} where {expected} was due")
                yield to_batch({key: np.array(value[0]) for key, value in row.items() if key != "step"})


def _spans(source: ClipSource, start: int) -> list[tuple[int, int]]:
    """The first span is one task, so that training starts soon; the others fill SPAN_BYTES. In a span all batches have one shape."""
    clips = open_clips(source.config_json, source.root, source.fingerprints)
    spans: list[tuple[int, int]] = []
    for first, stop in clips.stretches(start):
        step_bytes = sum(array.nbytes for array in clips.read(first, source.rank, source.num_ranks).values())
        steps = max(SPAN_BYTES // max(step_bytes, 1), STEPS_PER_TASK)
        low = first
        while low < stop:
            high = min(low + (steps if spans else STEPS_PER_TASK), stop)
            spans.append((low, high))
            low = high
    return spans


def _read_span(source: ClipSource, start: int, stop: int, cpus_per_task: float) -> ray.data.Dataset:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # One task at a time for each run: more would take CPUs from the other runs on this machine.
    context.execution_options.resource_limits = ExecutionResources(cpu=cpus_per_task)
    datasource = ClipDatasource(source, start, stop)
    blocks = len(datasource.get_read_tasks(1))
    return ray.data.read_datasource(datasource, num_cpus=cpus_per_task, override_num_blocks=blocks).materialize()
