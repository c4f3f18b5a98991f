"""Shares of global batches: exact for any weights, the same for any workers and after any resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wm.data.samples import config, inputs, refusal, user_error, wall_dataset, wall_folder, wall_source
from wm.config.data import ClipConfig, DinoWmSourceConfig
from wm.config.hashing import problem_hash, train_hash
from wm.config.mixture import MixtureConfig
from wm.config.schedule import AnySchedule, ConstantSchedule, CosineSchedule, LinearSchedule, value_at
from wm.data.clip_index import ClipIndex
from wm.data.clip_schedule import ClipSchedule
from wm.data.dataset import Dataset
from wm.data.mixture import BatchCounts

at_any_speed = settings(deadline=None, max_examples=25)
# Weights as people write them: small whole numbers and decimals.
written = st.one_of(st.integers(1, 20), st.integers(1, 400).map(lambda value: value / 100))
many_weights = st.lists(written, min_size=1, max_size=6)


def constant(weights: Sequence[float]) -> list[AnySchedule]:
    return [ConstantSchedule(start=float(weight)) for weight in weights]


def shares(weights: Sequence[float]) -> list[Fraction]:
    exact = [Fraction(str(weight)) for weight in weights]
    return [weight / sum(exact) for weight in exact]


def mixed(sizes: dict[str, int], batch_size: int, weights: dict[str, float], seed: int = 0) -> ClipSchedule:
    pools = {name: ClipIndex([(name, 0, size)], 1, 1) for name, size in sizes.items()}
    schedules = dict(zip(weights, constant(list(weights.values())), strict=True))
    return ClipSchedule(pools, batch_size, 50, seed, schedules)


@at_any_speed
@given(many_weights, st.integers(1, 40))
@example([2, 1, 14, 14], 3)  # whoever is owed most, or comes first, is not always the most urgent
@example([9, 1, 19, 15], 1)
def test_every_group_has_its_share_at_every_step(weights: list[float], batch_size: int) -> None:
    counts = BatchCounts(constant(weights), batch_size, 1)
    for step in range(40):
        taken = counts.before(step)
        assert sum(taken) == step * batch_size
        assert all(after >= before for before, after in zip(taken, counts.before(step + 1), strict=True))
        for share, count in zip(shares(weights), taken, strict=True):
            assert floor(share * step * batch_size) <= count <= ceil(share * step * batch_size)


@pytest.mark.parametrize("batch_size", [20, 40, 80])
@pytest.mark.parametrize("weights", [[1, 19], [0.05, 0.95], [3, 57]])
def test_nineteen_to_one_is_in_every_batch(weights: list[float], batch_size: int) -> None:
    counts = BatchCounts(constant(weights), batch_size, 1)
    for step in range(100):
        assert counts.before(step) == (step * batch_size // 20, step * batch_size // 20 * 19)


def test_a_whole_share_is_constant_beside_others_that_are_not() -> None:
    counts = BatchCounts(constant([1, 1, 1, 3]), 8, 1)  # 4/3 of a clip thrice, and 4 clips
    taken = [counts.before(step) for step in range(13)]
    assert {b[3] - a[3] for a, b in pairwise(taken)} == {4}
    assert taken[12] == (16, 16, 16, 48)


def test_a_group_smaller_than_a_clip_a_batch_comes_in_time() -> None:
    counts = BatchCounts(constant([1, 99]), 4, 1)
    assert [counts.before(25 * k)[0] for k in range(5)] == [0, 1, 2, 3, 4]


@at_any_speed
@given(many_weights, st.integers(1, 40), st.lists(st.integers(0, 300), max_size=4), st.integers(0, 300))
def test_counts_do_not_depend_on_what_was_asked(
    weights: list[float], batch_size: int, asked: list[int], step: int
) -> None:
    fresh, used = (BatchCounts(constant(weights), batch_size, 1) for _ in range(2))
    for other in asked:
        used.before(other)
    assert fresh.before(step) == used.before(step)


@pytest.mark.parametrize("changing", [LinearSchedule(start=1, end=19, over=0.8), CosineSchedule(start=1, end=0)])
def test_weights_may_change_over_training(changing: AnySchedule) -> None:
    total, batch = 400, 20
    counts = BatchCounts([changing, ConstantSchedule(start=1.0)], batch, total)
    taken = np.diff([counts.before(step)[0] for step in range(total + 1)])
    assert taken[0] == batch / 2
    assert set(taken[-20:]) <= ({19} if isinstance(changing, LinearSchedule) else {0, 1})
    progress = np.arange(total) / total
    weight = np.array([value_at(changing, float(p)) for p in progress])
    assert np.abs(np.cumsum(taken) - np.cumsum(batch * weight / (weight + 1))).max() < 1


@at_any_speed
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 5)), min_size=1, max_size=5), st.integers(1, 20))
def test_changing_shares_are_carried_too(ends: list[tuple[float, float]], batch_size: int) -> None:
    weights = [*(LinearSchedule(start=a, end=b) for a, b in ends), ConstantSchedule()]
    counts = BatchCounts(weights, batch_size, 100)
    promised = np.zeros(len(weights))
    for step in range(120):
        taken = counts.before(step)
        assert sum(taken) == step * batch_size
        assert np.abs(promised - taken).max() < 2
        values = np.array([value_at(weight, min(step / 100, 1)) for weight in weights])
        promised += batch_size * values / values.sum()


def test_one_pool_is_in_the_order_that_it_always_was() -> None:
    schedule = ClipSchedule({"": ClipIndex([("wall", 0, 17)], 1, 1)}, 4, None, 3)
    order = np.concatenate([np.random.default_rng([3, turn]).permutation(17) for turn in range(3)])
    stream = [ref.start for step in range(12) for ref in schedule.batch_at(step)]
    assert stream == order[:48].tolist()


@at_any_speed
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.lists(written, min_size=4, max_size=4),
    st.sampled_from([6, 12, 24]),
    st.integers(0, 40),
    st.integers(0, 3),
)
def test_batches_are_the_same_for_any_workers_and_after_a_resume(
    sizes: list[int], weights: list[float], batch_size: int, step: int, seed: int
) -> None:
    names = [f"s{i}" for i in range(len(sizes))]
    sizes[0] += batch_size

    def make() -> ClipSchedule:
        return mixed(dict(zip(names, sizes, strict=True)), batch_size, dict(zip(names, weights, strict=False)), seed)

    uninterrupted, resumed = make(), make()
    stream = [uninterrupted.batch_at(s) for s in range(step + 3)]
    for later in range(step, step + 3):
        assert resumed.batch_at(later) == stream[later]
        assert make().batch(*divmod(later, 50)) == stream[later]
        for ranks in (1, 2, 3):
            shards = [make().shard(later, rank, ranks) for rank in range(ranks)]
            assert [ref for together in zip(*shards, strict=True) for ref in together] == stream[later]
            for name in names:
                held = [sum(ref.source == name for ref in shard) for shard in shards]
                assert max(held) - min(held) <= 1
    for name, size in zip(names, sizes, strict=True):
        seen = dict.fromkeys(range(size), 0)
        for batch in stream:
            for ref in batch:
                if ref.source == name:
                    seen[ref.start] += 1
            assert max(seen.values()) - min(seen.values()) <= 1  # none twice before all once


def test_ranks_take_turns_where_a_share_does_not_come_out_even() -> None:
    schedule = mixed({"labelled": 50, "unlabelled": 500}, 20, {"labelled": 1, "unlabelled": 19})
    for ranks in (2, 4, 5):
        held = Counter(
            rank
            for step in range(20)
            for rank in range(ranks)
            for ref in schedule.shard(step, rank, ranks)
            if ref.source == "labelled"
        )
        assert held == {rank: 20 // ranks for rank in range(ranks)}


def test_two_pools_of_one_size_have_two_orders() -> None:
    schedule = mixed({"a": 40, "b": 40}, 20, {"a": 1, "b": 1})
    starts = {name: [ref.start for ref in schedule.batch_at(0) if ref.source == name] for name in "ab"}
    assert starts["a"] != starts["b"]


# -- config ----


def tree(mixture: dict[str, Any], **sources: dict[str, Any]) -> MixtureConfig:
    found = {f"data__sources__{name}": {"path": "x", **source} for name, source in sources.items()}
    return config(data__mixture=mixture, data__sources__wall__labels="all", **found).data.mixture


DROID = {"droid": {"labels": "none"}}


def test_the_tree_of_the_design_notes() -> None:
    groups = {"labelled": ["wall"], "unlabelled": ["droid"]}
    for written_as in ({"groups": groups, "labelled_fraction": 0.05}, {"groups": groups}):
        mixture = tree(written_as, **DROID)
        pools = mixture.pools(["droid", "wall"])
        assert pools == {"labelled": ("wall",), "unlabelled": ("droid",)}
        assert [weight.start for weight in mixture.weights_of(pools).values()] == [0.05, 0.95]
    mixture = tree({"groups": groups, "labelled_fraction": 0.07}, **DROID)
    assert [weight.start for weight in mixture.weights_of(groups).values()] == [0.07, 0.93]


def test_weights_by_source_and_by_group() -> None:
    weights = {"wall": {"start": 1}, "video": {"kind": "linear", "start": 9, "end": 3}}
    mixture = tree({"groups": {"video": ["a", "b"]}, "weights": weights}, a={}, b={})
    assert mixture.pools(["a", "b", "wall"]) == {"video": ("a", "b"), "wall": ("wall",)}
    assert mixture.weights["video"] == LinearSchedule(start=9, end=3)


def test_no_mixture_is_one_pool() -> None:
    mixture = tree({}, **DROID)
    assert not mixture.is_given
    assert mixture.pools(["droid", "wall"]) == {"": ("droid", "wall")}


BOTH = {"labelled": ["wall"], "unlabelled": ["droid"]}
ONE = {"start": 1.0}


@pytest.mark.parametrize(
    ("mixture", "parts"),
    [
        (
            {"weights": {"wall": {"start": 0.0}, "droid": {"start": 1}}},
            ["data.mixture", "weights.wall", "remove the source"],
        ),
        ({"weights": {"wall": {"kind": "linear", "start": 0.0, "end": 0.0}, "droid": {"start": 1}}}, ["weights.wall"]),
        ({"weights": {"wall": {"warmup": 0.1}, "droid": {"warmup": 0.1}}}, ["all are 0 at 0 of training"]),
        ({"weights": {"wall": {"start": 1}}}, ["mixture.weights.droid", "must be given"]),
        (
            {"weights": {"wall": ONE, "droid": ONE, "driod": ONE}},
            ["mixture.weights.driod", "Did you mean 'droid'"],
        ),
        ({"groups": {"labelled": ["wal"], "unlabelled": ["droid"]}}, ["no source is named 'wal'", "'wall'"]),
        ({"groups": {"labelled": ["wall", "droid"], "unlabelled": ["droid"]}}, ["'droid' is in 'labelled' already"]),
        ({"groups": {"labelled": [], "unlabelled": ["droid"]}}, ["groups.labelled", "names no source"]),
        ({"groups": {"labelled": ["droid"], "unlabelled": ["wall"]}}, ["sources.droid.labels=none"]),
        (
            {"groups": {"droid": ["wall"]}, "weights": {"droid": {"start": 1}}},
            ["mixture.groups.droid", "choose another"],
        ),
        ({"labelled_fraction": 0.05}, ["labelled_fraction needs the groups"]),
        (
            {"groups": BOTH, "labelled_fraction": 0.05, "weights": {"labelled": {"start": 1}}},
            ["labelled_fraction needs"],
        ),
        ({"groups": BOTH, "labelled_fraction": 0.0}, ["data.mixture.labelled_fraction"]),
        ({"groups": BOTH, "labelled_fraction": 1.0}, ["data.mixture.labelled_fraction"]),
    ],
)
def test_a_mixture_that_cannot_be_meant_is_refused(mixture: dict[str, Any], parts: list[str]) -> None:
    message = user_error(lambda: tree(mixture, **DROID))
    for part in parts:
        assert part in message


def test_a_source_that_is_too_short_for_its_share_is_refused() -> None:
    sources = {name: DinoWmSourceConfig(path=str(wall_folder())) for name in ("a", "b")}
    weights = {name: ConstantSchedule() for name in sources}
    dataset = wall_dataset(sources=sources, mixture=MixtureConfig(weights=weights), clip=ClipConfig(frameskip=20))
    assert refusal(lambda: dataset.train_clips(2)) is None
    message = user_error(lambda: dataset.train_clips(3))
    for part in ("data.sources.a", "data.mixture", "60 env steps", "has 40"):
        assert part in message


def test_only_episodes_within_the_range_are_encoded(tmp_path: Path) -> None:
    low = float(np.median(wall_source().wall_x))
    run = inputs(tmp_path, data__tokens="store", data__sources__wall__tags__wall_x=[low, 1000], data__val_fraction=0.5)
    (missing,) = run.missing_tokens()
    assert missing.episodes == sorted(index for half in run.dataset.split["wall"] for index in half)
    assert 0 < len(missing.episodes) < len(wall_source())


def test_a_source_may_be_the_episodes_within_a_range() -> None:
    walls = sorted({float(x) for x in wall_source().wall_x})
    middle = walls[len(walls) // 2]

    def opened(low: float, high: float) -> Dataset:
        ranges = {"wall_x": (low, high)}
        return wall_dataset(sources={"wall": DinoWmSourceConfig(path="wall", tags=ranges)}, val_fraction=0.5)

    whole, left, right = wall_dataset(val_fraction=0.5), opened(0, middle), opened(middle + 0.01, walls[-1])
    for half in (0, 1):
        parts = [dataset.split["wall"][half] for dataset in (left, right)]
        assert sorted(parts[0] + parts[1]) == sorted(whole.split["wall"][half])
        assert all(whole.sources["wall"].episode(index).tags["wall_x"] <= middle for index in parts[0])
    assert {ref.episode for ref in left.train_clips(2)[""]} == set(left.split["wall"][0])
    assert len({dataset.fingerprint for dataset in (whole, left, right)}) == 3
    assert "data.sources.wall.tags" in user_error(lambda: opened(walls[-1] + 1, 1000))
    misspelt = {"wall": DinoWmSourceConfig(path="wall", tags={"wal_x": (0, 1)})}
    assert "data.sources.wall.tags.wal_x: no episode has this tag. Did you mean 'wall_x'?" in user_error(
        lambda: wall_dataset(sources=misspelt)
    )
    given = {"data__sources__wall__tags__wall_x": [20, 10]}
    assert "tags.wall_x: [20, 10] is no range" in user_error(lambda: config(**given))


def test_the_mixture_names_the_run() -> None:
    groups = {"labelled": ["wall"], "unlabelled": ["droid"]}
    droid = {"data__sources__droid": {"path": "x", "labels": "none"}}
    changes: list[dict[str, Any]] = [
        {},
        {"data__mixture__groups": groups},
        {"data__mixture__groups": groups, "data__mixture__labelled_fraction": 0.1},
        {"data__mixture__weights": {"wall": {"start": 1}, "droid": {"start": 3}}},
        {"data__mixture__weights": {"wall": {"kind": "linear", "start": 1, "end": 2}, "droid": {"start": 3}}},
    ]
    names = {train_hash(config(**droid, **change), "data", "encoder") for change in changes}
    assert len(names) == len(changes)
    assert train_hash(config(**droid), "data", "encoder") == train_hash(config(), "data", "encoder")


def test_the_primary_names_the_run_and_its_problems() -> None:
    droid = {"data__sources__droid": {"path": "x", "labels": "none"}}
    base, named = config(**droid), config(**droid, data__primary="wall")
    assert train_hash(base, "data", "encoder") != train_hash(named, "data", "encoder")
    assert problem_hash(base, "data", 5) != problem_hash(named, "data", 5)


def test_what_one_source_trains_on_no_other_holds_out() -> None:
    def opened(**other: Any) -> Dataset:
        sources = {"one": DinoWmSourceConfig(path="wall"), "two": DinoWmSourceConfig(path="wall", **other)}
        return wall_dataset(sources=sources, val_fraction=0.5)

    split = opened(labels="none").split
    assert split["one"] == split["two"]
    message = user_error(lambda: opened(episodes=7))
    assert "data.sources.two: reads episodes of 'one' too" in message
    assert "held out in the other" in message
    assert "two" in opened(tags={"wall_x": (0, 1000)}).split
