"""What is read when, without Ray: spans that grow to a size, one ahead of the one in use, and an end at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_jobs.runtime import stream
from ray_jobs.runtime.stream import Block, ClipSource, stream_batches
from tests.wm.data.samples import inputs
from wm.data.clip_reader import to_batch
from wm.training_run import RunClips

STEPS = 60
SOURCE = ClipSource("{}", "", (), 0, 1)


@pytest.fixture
def clips(tmp_path: Path) -> RunClips:
    return inputs(tmp_path, train__epochs=1, train__steps_per_epoch=STEPS).clips


@pytest.fixture
def asked(clips: RunClips, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The spans that were asked for so far; Ray Data's part is done by a thread of this process."""
    spans: list[tuple[int, int]] = []

    def read(source: ClipSource, first: int, stop: int, cpus: float) -> Iterator[Block]:
        spans.append((first, stop))
        for low in range(first, stop, 7):
            high = min(low + 7, stop)
            yield {"step": np.arange(low, high), **clips.read_steps(low, high, source.rank, source.num_ranks)}

    monkeypatch.setattr(stream, "_read_span", read)
    return spans


def settled(spans: list[Any], count: int) -> list[Any]:
    """The spans once there are so many, and a moment for one too many to come."""
    deadline = time.monotonic() + 20
    while len(spans) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    return spans


def sizes(clips: RunClips, monkeypatch: pytest.MonkeyPatch, span_bytes: int, start: int = 0) -> list[int]:
    monkeypatch.setattr(stream, "SPAN_BYTES", span_bytes)
    spans = stream._spans(clips, SOURCE, start)
    assert spans[0][0] == start
    assert spans[-1][1] == STEPS
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    return [stop - first for first, stop in spans]


def test_spans_grow_up_to_their_size(clips: RunClips, monkeypatch: pytest.MonkeyPatch) -> None:
    step = sum(values.nbytes for values in clips.read(0).values())
    assert clips.step_bytes(0) == step
    assert sizes(clips, monkeypatch, 1000 * step) == [20, 40]
    assert sizes(clips, monkeypatch, 25 * step) == [20, 25, 15]
    assert sizes(clips, monkeypatch, 25 * step, start=23) == [20, 17]
    assert sizes(clips, monkeypatch, step // 2) == [1] * STEPS


def test_a_part_of_the_batch_is_so_much_smaller(clips: RunClips) -> None:
    assert 2 * clips.step_bytes(0, 1, 2) == clips.step_bytes(0)


def test_no_span_holds_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [{"size": 14, "until": 0.45}]  # 27 steps
    clips = inputs(tmp_path, train__epochs=1, train__steps_per_epoch=STEPS, train__resolution=stages).clips
    assert sizes(clips, monkeypatch, 2**40) == [20, 7, 33]


def test_one_span_is_read_beyond_the_one_in_use(
    clips: RunClips, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FIRST_STEPS", 5)
    monkeypatch.setattr(stream, "SPAN_BYTES", 10 * clips.step_bytes(0))
    batches = stream_batches(SOURCE, 0, 0.2, clips)
    seen = {0: 2, 4: 2, 5: 3, 14: 3, 15: 4, 25: 5}
    for step in range(26):
        batch = next(batches)
        assert torch.equal(batch.obs.visual, to_batch(clips.read(step)).obs.visual)
        if step in seen:
            assert len(settled(asked, seen[step])) == seen[step], step
    batches.close()  # type: ignore[attr-defined]
    assert len(settled(asked, 5)) == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "clips"]


def test_every_batch_comes_once(clips: RunClips, asked: list[tuple[int, int]]) -> None:
    assert len(list(stream_batches(SOURCE, 3, 0.2, clips))) == STEPS - 3
    assert asked == [(3, 23), (23, 60)]


def test_only_tokens_are_views_of_what_was_read(clips: RunClips, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes to shared memory ends: all but what `Batch.to` copies is the training's own."""
    block = {"step": np.arange(1), **clips.read_steps(0, 1)}
    tokens = {**block, "visual": np.zeros((1, 4, 2, 3, 5), np.float16)}
    for given, is_view in ((block, False), (tokens, True)):
        monkeypatch.setattr(stream, "_read_span", lambda *rest, given=given: iter([dict(given)]))
        batch = next(stream_batches(SOURCE, 0, 0.2, clips))
        assert np.shares_memory(batch.obs.visual.numpy(), given["visual"]) == is_view
        assert not np.shares_memory(batch.actions.numpy(), given["actions"])


@pytest.mark.parametrize("fault", [ValueError("damaged"), KeyboardInterrupt()])
def test_what_reading_raises_is_raised(clips: RunClips, monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    def read(*given: Any) -> Iterator[Block]:
        yield {"step": np.arange(2), **clips.read_steps(0, 2)}
        raise fault

    monkeypatch.setattr(stream, "_read_span", read)
    batches = stream_batches(SOURCE, 0, 0.2, clips)
    next(batches), next(batches)
    with pytest.raises(type(fault)):
        next(batches)


def test_a_step_out_of_order_is_refused(clips: RunClips, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"step": np.array([1]), **clips.read_steps(1, 2)}
    monkeypatch.setattr(stream, "_read_span", lambda *given: iter([wrong]))
    with pytest.raises(RuntimeError, match="the stream gave step 1 where 0 was due"):
        next(stream_batches(SOURCE, 0, 0.2, clips))


def test_tokens_stay_as_stored_until_they_are_moved() -> None:
    tokens = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float16)
    arrays = {"visual": tokens, "actions": np.zeros((2, 3, 1), np.float32), "has_actions": np.ones(2, bool)}
    batch = to_batch(arrays, as_stored=True)
    assert batch.obs.visual.dtype == torch.float16
    assert np.shares_memory(batch.obs.visual.numpy(), tokens)
    moved = batch.to(torch.device("cpu"))
    assert moved.obs.visual.dtype == torch.float32
    assert torch.equal(moved.obs.visual, to_batch(arrays).obs.visual)
    assert moved.actions is batch.actions
