"""Which clips there are and in what order: against the reference's own slices, and for any sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wm.data.samples import user_error
from wm.data.clip_index import ClipIndex, split_episodes
from wm.data.clip_schedule import ClipSchedule

Golden = Callable[[str], dict[str, Any]]
at_any_speed = settings(deadline=None, max_examples=50)
lengths = st.lists(st.integers(0, 30), min_size=1, max_size=6)


def index_of(lengths: list[int], num_frames: int, frameskip: int, whole_actions: bool = True) -> ClipIndex:
    return ClipIndex([("wall", i, length) for i, length in enumerate(lengths)], num_frames, frameskip, whole_actions)


def schedule_of(num_clips: int, batch_size: int, steps_per_epoch: int | None = None, seed: int = 0) -> ClipSchedule:
    return ClipSchedule({"": index_of([num_clips], 1, 1)}, batch_size, steps_per_epoch, seed)


def test_split_is_the_references(golden: Golden) -> None:
    numbers = golden("dino_wm/dataset_slicing")
    count, fraction = len(numbers["in/split_lengths"]), numbers["cfg/train_fraction"]
    train, held_out = split_episodes(count, 1 - fraction, numbers["cfg/split_seed"])
    assert train == numbers["out/split_train"].tolist()
    assert held_out == numbers["out/split_val"].tolist()


@pytest.mark.parametrize("val_fraction", [0.1, 0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("count", [10, 12, 30, 100])
def test_split_counts_are_not_lost_to_rounding(count: int, val_fraction: float) -> None:
    train, held_out = split_episodes(count, val_fraction, 0)
    assert sorted(train + held_out) == list(range(count))
    assert len(train) == (count * round((1 - val_fraction) * 10)) // 10
    assert split_episodes(count, val_fraction, 1) != (train, held_out)


@pytest.mark.parametrize("kind", ["", "edge_"])
def test_clips_are_the_references(golden: Golden, kind: str) -> None:
    numbers = golden("dino_wm/dataset_slicing")
    num_frames, frameskip = numbers["cfg/num_hist"] + numbers["cfg/num_pred"], numbers["cfg/frameskip"]
    clips = index_of(numbers[f"in/{kind}lengths"].tolist(), num_frames, frameskip)
    found = [[ref.episode, ref.start, ref.start + clips.window] for ref in clips]
    assert found == numbers[f"out/{kind}slices_unshuffled"].tolist()


@at_any_speed
@given(lengths, st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_every_start_that_fits_once_and_in_order(sizes: list[int], frames: int, skip: int, whole: bool) -> None:
    clips = index_of(sizes, frames, skip, whole)
    window = frames * skip if whole else (frames - 1) * skip + 1
    expected = [(i, start) for i, length in enumerate(sizes) for start in range(length - window + 1)]
    assert [(ref.episode, ref.start) for ref in map(clips.__getitem__, range(len(clips)))] == expected
    for ref in (clips[i] for i in range(len(clips))):
        assert ref.frame_indices[-1] < sizes[ref.episode]
        assert np.diff(ref.frame_indices).tolist() == [skip] * (frames - 1)
    for outside in (-1, len(clips)):
        with pytest.raises(IndexError):
            clips[outside]


@at_any_speed
@given(lengths, st.integers(1, 50), st.integers(0, 3))
def test_spread_draws_different_clips_in_order(sizes: list[int], count: int, seed: int) -> None:
    clips = index_of(sizes, 2, 1)
    drawn = clips.spread(count, seed)
    assert len(drawn) == len(set(drawn)) == min(count, len(clips))
    assert drawn == sorted(drawn)
    assert drawn == clips.spread(count, seed)


def test_spread_follows_its_seed() -> None:
    clips = index_of([100], 1, 1)
    assert clips.spread(10, 0) != clips.spread(10, 1)


@at_any_speed
@given(st.integers(6, 40), st.sampled_from([1, 2, 3]), st.integers(0, 30), st.integers(0, 2))
def test_ranks_share_the_same_global_batch(num_clips: int, ranks: int, step: int, seed: int) -> None:
    schedule = schedule_of(num_clips, 6, seed=seed)
    whole = schedule.batch_at(step)
    shards = [schedule.shard(step, rank, ranks) for rank in range(ranks)]
    assert {len(shard) for shard in shards} == {6 // ranks}
    assert Counter(ref for shard in shards for ref in shard) == Counter(whole)
    assert [ref for together in zip(*shards, strict=True) for ref in together] == list(whole)


@at_any_speed
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 5))
def test_no_clip_twice_before_all_once(num_clips: int, batch_size: int, seed: int) -> None:
    batch_size = min(batch_size, num_clips)
    schedule = schedule_of(num_clips, batch_size, seed=seed)
    steps = 3 * num_clips // batch_size + 1
    stream = [ref for step in range(steps) for ref in schedule.batch_at(step)]
    for first in range(0, len(stream) - num_clips + 1, num_clips):
        assert len(set(stream[first : first + num_clips])) == num_clips


@at_any_speed
@given(st.integers(0, 40), st.integers(0, 20))
def test_a_schedule_is_the_same_from_any_step_on(resumed_at: int, asked_before: int) -> None:
    uninterrupted, resumed = schedule_of(17, 4, seed=3), schedule_of(17, 4, seed=3)
    resumed.batch_at(asked_before)  # what was asked before changes nothing
    for step in range(resumed_at, resumed_at + 6):
        assert uninterrupted.batch_at(step) == resumed.batch_at(step)
        assert uninterrupted.batch(*divmod(step, uninterrupted.steps_per_epoch)) == resumed.batch_at(step)


def test_each_round_and_each_seed_has_its_order() -> None:
    orders = {
        tuple(ref.start for step in range(5) for ref in schedule_of(20, 4, seed=seed).batch_at(5 * turn + step))
        for turn in range(3)
        for seed in range(3)
    }
    assert len(orders) == 9
    assert tuple(range(20)) not in orders


def test_steps_per_epoch() -> None:
    assert schedule_of(17, 4).steps_per_epoch == 4
    longer = schedule_of(17, 4, steps_per_epoch=9)
    assert longer.steps_per_epoch == 9
    assert longer.batch(2, 1) == longer.batch_at(19)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    message = user_error(lambda: schedule_of(3, 4))
    assert "train.batch_size" in message
    assert "3 training clips" in message
