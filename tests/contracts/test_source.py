"""What every episode source must do. A new layout joins by a line in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.wm.data.samples import feature_source, wall_source
from wm.contracts import Episode, Source

SOURCES: dict[str, Callable[[], Source]] = {
    "wall_single": wall_source,
    "wall_single_unlabelled": lambda: wall_source(labels="none"),
    "wall_single_capped": lambda: wall_source(episodes=3),
    "precomputed": feature_source,
    "precomputed_unlabelled": lambda: feature_source(labels="none"),
}
PIXELS = [name for name in SOURCES if name.startswith("wall")]


@pytest.fixture(params=list(SOURCES))
def make(request: pytest.FixtureRequest) -> Callable[[], Source]:
    return SOURCES[request.param]


@pytest.fixture(params=PIXELS)
def make_pixels(request: pytest.FixtureRequest) -> Callable[[], Source]:
    return SOURCES[request.param]


def test_is_a_source(make: Callable[[], Source]) -> None:
    source = make()
    assert isinstance(source, Source)
    assert len(source) == len(source.lengths) > 0
    episodes = [source.episode(i) for i in range(len(source))]
    assert all(isinstance(episode, Episode) for episode in episodes)
    assert len({episode.id for episode in episodes}) == len(episodes)
    for episode, length in zip(episodes, source.lengths, strict=True):
        assert episode.source == source.name
        assert episode.length == length
        assert episode.fps > 0


def test_arrays_have_a_row_for_every_step_or_are_none(make: Callable[[], Source]) -> None:
    source = make()
    for index in range(len(source)):
        episode = source.episode(index)
        for values, names in (
            (episode.actions, source.action_names),
            (episode.proprio, source.proprio_names),
            (episode.state, source.state_names),
        ):
            if values is not None:
                assert values.shape == (episode.length, len(names))
                assert values.dtype == np.float32
                assert np.isfinite(values).all()


def test_frames_come_in_the_order_asked(make_pixels: Callable[[], Source]) -> None:
    episode = make_pixels().episode(0)
    every = episode.frames(np.arange(episode.length))
    assert every.dtype == np.uint8
    assert every.shape[0] == episode.length
    assert every.shape[-1] == 3
    for indices in ([0], [episode.length - 1], [7, 2, 2], np.array([1, 11, 21])):
        np.testing.assert_array_equal(episode.frames(indices), every[indices])
    every[:] = 0  # the caller may write on them
    assert episode.frames([0]).any()


def test_frames_beyond_the_end_are_refused(make_pixels: Callable[[], Source]) -> None:
    episode = make_pixels().episode(0)
    with pytest.raises(IndexError):
        episode.frames([episode.length])


def test_two_readers_have_one_fingerprint(make: Callable[[], Source]) -> None:
    assert make().fingerprint == make().fingerprint


def test_two_readers_agree(make_pixels: Callable[[], Source]) -> None:
    first, second = make_pixels(), make_pixels()
    np.testing.assert_array_equal(first.episode(1).frames([3]), second.episode(1).frames([3]))
