"""What every episode source must do. A new layout joins by a line in `SOURCES`."""

from __future__ import annotations

import atexit
import pickle
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wm.data.layouts import (
    open_layout,
    write_franka_motions,
    write_franka_steps,
    write_layout,
    write_robomimic,
)
from tests.wm.data.samples import feature_source, wall_source
from tests.wm.data.sources.recorded import can_source, lerobot_source
from wm.contracts import Episode, Source

_scratch = Path(tempfile.mkdtemp(prefix="wm-tests-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)


FOLDERS: dict[str, Callable[[Path], object]] = {
    **{layout: partial(write_layout, layout) for layout in ("point_maze", "deformable", "pusht_noise")},
    "robomimic": write_robomimic,
    "robomimic_older": partial(write_robomimic, older=True),
    "franka_steps": write_franka_steps,
    "franka_motions": write_franka_motions,
}


@cache
def folder(name: str) -> Path:
    """Made once; nobody may write there."""
    FOLDERS[name](_scratch / name)
    return _scratch / name


def opened(name: str, layout: str, **config: Any) -> Source:
    return open_layout(layout, folder(name), **config)


SOURCES: dict[str, Callable[[], Source]] = {
    "wall_single": wall_source,
    "wall_single_unlabelled": lambda: wall_source(labels="none"),
    "wall_single_capped": lambda: wall_source(episodes=3),
    "point_maze": lambda: opened("point_maze", "point_maze"),
    "deformable": lambda: opened("deformable", "deformable"),
    "pusht_noise": lambda: opened("pusht_noise", "pusht_noise"),
    "pusht_noise_unlabelled": lambda: opened("pusht_noise", "pusht_noise", labels="none"),
    "pusht_noise_without_velocity": lambda: opened("pusht_noise", "pusht_noise", with_velocity=False, episodes=2),
    "robomimic": lambda: opened("robomimic", "robomimic"),
    "robomimic_older": lambda: opened("robomimic_older", "robomimic"),
    "franka_steps": lambda: opened("franka_steps", "franka"),
    "franka_motions": lambda: opened("franka_motions", "franka", colors="bgr"),
    "robomimic_hdf5": can_source,
    "robomimic_hdf5_unlabelled": lambda: can_source(labels="none"),
    "robomimic_hdf5_capped": lambda: can_source(episodes=2, camera="robot0_eye_in_hand"),
    "lerobot_v2.1": lambda: lerobot_source("v2.1"),
    "lerobot_v3.0": lambda: lerobot_source("v3.0"),
    "lerobot_unlabelled": lambda: lerobot_source("v3.0", labels="none", camera="wrist"),
    "lerobot_capped": lambda: lerobot_source("v3.0", episodes=3),
    "precomputed": feature_source,
    "precomputed_unlabelled": lambda: feature_source(labels="none"),
}
PIXELS = [name for name in SOURCES if not name.startswith("precomputed")]


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
    assert len(np.unique(every.reshape(episode.length, -1), axis=0)) > 1
    for indices in ([0], [episode.length - 1], [7, 2, 2], np.array([1, 11, 21])):
        np.testing.assert_array_equal(episode.frames(indices), every[indices])
    every[:] = 0  # the caller may write on them
    assert episode.frames([0]).any()


def test_frames_beyond_the_end_are_refused(make_pixels: Callable[[], Source]) -> None:
    episode = make_pixels().episode(0)
    for indices in ([episode.length], [-1]):
        with pytest.raises(IndexError):
            episode.frames(indices)


def test_episodes_beyond_the_last_are_refused(make: Callable[[], Source]) -> None:
    source = make()
    for index in (len(source), -1):
        with pytest.raises(IndexError):
            source.episode(index)


def test_two_readers_have_one_fingerprint(make: Callable[[], Source]) -> None:
    assert make().fingerprint == make().fingerprint


def test_a_source_travels_to_workers(make_pixels: Callable[[], Source]) -> None:
    source = make_pixels()
    sent = pickle.loads(pickle.dumps(source))
    assert sent.fingerprint == source.fingerprint
    np.testing.assert_array_equal(sent.episode(1).frames([2]), source.episode(1).frames([2]))


def test_two_readers_agree(make_pixels: Callable[[], Source]) -> None:
    first, second = make_pixels(), make_pixels()
    np.testing.assert_array_equal(first.episode(1).frames([3]), second.episode(1).frames([3]))
