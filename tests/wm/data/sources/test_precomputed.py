"""Features recorded as files: read as they lie, and every bad folder refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SHARED_DATA
from tests.wm.data.samples import user_error
from wm.config.data import DataConfig, PrecomputedSourceConfig
from wm.data.clip_reader import to_batch
from wm.data.dataset import Dataset, open_source
from wm.data.sources.precomputed import PrecomputedSource
from wm.types import ClipRef

EPISODES, STEPS, DIM = 6, 30, 5
Arrays = dict[str, np.ndarray]


def arrays() -> Arrays:
    """Features (N, T, D) that say which frame they are of."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(EPISODES, STEPS, DIM)).astype(np.float16)
    features[..., 0] = np.arange(EPISODES)[:, None]
    features[..., 1] = np.arange(STEPS)
    states = rng.normal(size=(EPISODES, STEPS, 3)).astype(np.float32)
    return {"features": features, "states": states, "actions": rng.normal(size=(EPISODES, STEPS, 2))}


def write(folder: Path, given: Arrays, archive: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if archive:
        np.savez(folder / "features.npz", allow_pickle=False, **given)
    else:
        for key, values in given.items():
            np.save(folder / f"{key}.npy", values)
    return folder


def source(folder: Path, **config: Any) -> PrecomputedSource:
    found = open_source(PrecomputedSourceConfig(path="features", **config), "maze", folder)
    assert isinstance(found, PrecomputedSource)
    return found


@pytest.mark.parametrize("archive", [True, False])
def test_reads_what_lies_there(tmp_path: Path, archive: bool) -> None:
    given = arrays()
    found = source(write(tmp_path, given, archive), state_names=("x", "y", "speed"))
    assert len(found) == EPISODES
    assert found.token_shape == (1, DIM)
    for indices in (np.arange(STEPS), np.array([29, 0, 7])):
        tokens = found.read(4, indices)
        assert tokens.dtype == np.float16
        np.testing.assert_array_equal(tokens[:, 0], given["features"][4, indices])
    episode = found.episode(4)
    np.testing.assert_array_equal(episode.state, given["states"][4])
    np.testing.assert_array_equal(episode.actions, given["actions"][4].astype(np.float32))
    assert episode.proprio is None
    assert found.state_names == ("x", "y", "speed")
    assert found.action_names == ("action_0", "action_1")
    assert found.proprio_names == ()


def test_patches_proprio_and_lengths(tmp_path: Path) -> None:
    given = arrays()
    patches = np.stack([given["features"], 2 * given["features"]], axis=2)
    lengths = np.array([30, 7, 30, 30, 30, 1])
    given["states"][1, 7:] = np.nan  # past the end: nobody reads it
    found = source(write(tmp_path, {**given, "features": patches, "proprio": given["states"], "lengths": lengths}))
    assert found.token_shape == (2, DIM)
    np.testing.assert_array_equal(found.read(2, np.array([3]))[0], patches[2, 3])
    assert list(found.lengths) == lengths.tolist()
    assert found.episode(1).proprio.shape == (7, 3)  # type: ignore[union-attr]
    with pytest.raises(IndexError):
        found.read(1, np.array([7]))
    for index in (-1, EPISODES):
        with pytest.raises(IndexError):
            found.episode(index)


def test_files_are_mapped_not_read(tmp_path: Path) -> None:
    assert isinstance(source(write(tmp_path, arrays(), archive=False)).features.base, np.memmap)


def test_there_are_no_pixels(tmp_path: Path) -> None:
    episode = source(write(tmp_path, arrays())).episode(0)
    message = user_error(lambda: episode.frames([0]))
    for part in ("data.sources.maze", "no frames", "planning", "rollout strips"):
        assert part in message


def test_labels_can_be_hidden(tmp_path: Path) -> None:
    episode = source(write(tmp_path, arrays()), labels="none").episode(0)
    assert episode.actions is None
    assert episode.state is None


def test_the_fingerprint_is_of_the_numbers_not_the_place(tmp_path: Path) -> None:
    base = source(write(tmp_path / "a", arrays()))
    assert source(write(tmp_path / "b", arrays(), archive=False)).fingerprint == base.fingerprint
    others = [
        source(tmp_path / "a", episodes=3),
        source(tmp_path / "a", labels="none"),
        source(tmp_path / "a", state_names=("x", "y", "z")),
    ]
    for key in ("features", "states", "actions"):
        changed = arrays()
        changed[key][5, -1, 0] += 1
        others.append(source(write(tmp_path / key, changed)))
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def without(key: str) -> Callable[[Arrays], object]:
    return lambda given: given.pop(key)


def change(key: str, values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], object]:
    return lambda given: given.update({key: values(given[key])})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without("features"), "no features (found actions, states)"),
        (change("features", lambda f: f.astype(np.int64)), "features must be floats"),
        (change("features", lambda f: f[0]), "found float16 (30, 5)"),
        (change("features", lambda f: f[:0]), "features must be floats"),
        (change("states", lambda s: s[:, :-1]), "states (6, 29, 3) do not fit features (6, 30)"),
        (change("actions", lambda a: np.full_like(a, np.nan)), "action of episode 000 holds NaN"),
        (lambda given: given.update(lengths=np.array([31] * 6)), "lengths must be (6,) within 1..30"),
    ],
)
def test_a_bad_folder_is_refused(tmp_path: Path, spoil: Callable[[Arrays], object], says: str) -> None:
    given = arrays()
    spoil(given)
    write(tmp_path, given)
    message = user_error(lambda: source(tmp_path))
    assert str(tmp_path) in message
    assert says in message


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    assert "no such data folder" in user_error(lambda: source(tmp_path / "nowhere"))
    (tmp_path / "features.npz").write_bytes(b"PK nothing")
    assert "unreadable features" in user_error(lambda: source(tmp_path))
    np.savez(tmp_path / "features.npz", features=np.array([{"a": 1}], dtype=object))
    assert "unreadable features" in user_error(lambda: source(tmp_path))


def test_names_must_fit_the_columns(tmp_path: Path) -> None:
    write(tmp_path, arrays())
    message = user_error(lambda: source(tmp_path, state_names=("x", "y")))
    assert "data.sources.maze.state_names: 2 names for the 3 columns" in message
    assert "has no proprio" in user_error(lambda: source(tmp_path, proprio_names=("x",)))


def test_features_that_are_not_numbers_are_found_when_read(tmp_path: Path) -> None:
    given = arrays()
    given["features"][3, 4, 2] = np.inf
    found = source(write(tmp_path, given))
    found.read(3, np.array([3]))
    assert "features of episode 3 hold NaN or infinity" in user_error(lambda: found.read(3, np.arange(5)))


def dataset(root: Path, **config: Any) -> Dataset:
    sources = {"maze": PrecomputedSourceConfig(path="maze")}
    return Dataset(DataConfig(**{"sources": sources, **config}), root, "fingerprint")


def test_clips_read_the_source_s_own_tokens_and_no_store(tmp_path: Path) -> None:
    given = arrays()
    write(tmp_path / "data" / "maze", given)
    found = dataset(tmp_path)
    assert found.stores == {}
    batch = to_batch(found.reader.read([ClipRef("maze", 2, 3, 4, 3), ClipRef("maze", 0, 0, 4, 3)]))
    assert not batch.obs.is_pixels
    assert batch.obs.visual[..., 0].squeeze(-1).tolist() == [[2, 2, 2], [0, 0, 0]]
    assert batch.obs.visual[..., 1].squeeze(-1).tolist() == [[3, 7, 11], [0, 4, 8]]
    assert batch.obs.proprio is None
    assert batch.has_state.all()


def test_the_last_episodes_can_be_held_out(tmp_path: Path) -> None:
    write(tmp_path / "data" / "maze", arrays())
    found = dataset(tmp_path, held_out_last=2)
    assert found.split["maze"] == ([0, 1, 2, 3], [4, 5])
    fingerprints = {dataset(tmp_path).fingerprint, found.fingerprint, dataset(tmp_path, held_out_last=3).fingerprint}
    assert len(fingerprints) == 3
    for count in (6, 7):
        message = user_error(lambda count=count: dataset(tmp_path, held_out_last=count))
        assert f"data.sources.maze: 6 episodes cannot be split by held_out_last {count}" in message


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no real data in {SHARED_DATA}")
def test_real_features_of_a_maze() -> None:
    """Facts of ENVIRONMENT.md, and that a ridge probe of the held-out episodes finds x and y."""
    from wm.evaluation.probe import StateProbe

    sources = {"maze": PrecomputedSourceConfig(path=str(SHARED_DATA / "dinov2L_cls_pointmaze"))}
    found = Dataset(DataConfig(sources=sources, held_out_last=10), Path("nowhere"), None)
    features = found.features["maze"]
    assert (len(features), features.token_shape, features.lengths[0]) == (60, (1, 1024), 100)
    train, held_out = found.split["maze"]
    assert (train, held_out) == (list(range(50)), list(range(50, 60)))

    def rows(episodes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.concatenate([features.read(i, np.arange(0, 100, 2))[:, 0] for i in episodes])
        states = np.concatenate([features.episode(i).state[::2, :2] for i in episodes])  # type: ignore[index]
        return tokens, states

    assert StateProbe(*rows(train)).r2(*rows(held_out)).min() > 0.98
