"""From clip references to a batch: which frames, which actions, in which units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.wm.data.samples import STEPS, encoder, user_error, wall_copy, wall_dataset, wall_folder
from wm.config.data import ClipConfig, DataConfig, DinoWmSourceConfig
from wm.data.clip_reader import ClipReader, to_batch
from wm.data.dataset import Dataset
from wm.data.normalization import MIN_STD, DataStatistics, vector_statistics
from wm.data.token_files import TokenFiles
from wm.types import ClipRef, Statistics


def plain_statistics(size: int) -> Statistics:
    return Statistics(np.zeros(size, np.float32), np.ones(size, np.float32))


def test_grouping_is_the_references(golden: Callable[[str], dict[str, Any]]) -> None:
    numbers = golden("dino_wm/dataset_slicing")
    episode = SimpleNamespace(
        actions=numbers["in/traj0_action"],
        proprio=numbers["in/traj0_proprio"],
        state=numbers["in/traj0_state"],
        frames=lambda indices: numbers["in/traj0_visual"][indices],
    )
    source: Any = SimpleNamespace(episode=lambda index: episode)
    statistics = DataStatistics(plain_statistics(2), plain_statistics(4), plain_statistics(7))
    number, start, end = numbers["out/example_slice"].tolist()
    assert (number, end - start) == (0, 20)
    clip = ClipReader({"a": source}, {}, statistics).read([ClipRef("a", 0, start, 5, 4)])
    np.testing.assert_array_equal(clip["visual"][0], numbers["out/example_visual"])
    np.testing.assert_array_equal(clip["actions"][0], numbers["out/example_action"])
    np.testing.assert_array_equal(clip["proprio"][0], numbers["out/example_proprio"])
    np.testing.assert_array_equal(clip["state"][0], numbers["out/example_state"])


def test_values_are_normalised_and_frames_lie_frameskip_apart() -> None:
    dataset = wall_dataset()
    source, statistics = dataset.sources["wall"], dataset.statistics
    refs = [ClipRef("wall", 3, 7, 5, 4), ClipRef("wall", 0, 20, 5, 4)]
    batch = to_batch(dataset.reader.read(refs))
    assert batch.obs.is_pixels
    for row, ref in enumerate(refs):
        episode, rows = source.episode(ref.episode), [ref.start + 5 * k for k in range(4)]
        np.testing.assert_array_equal(batch.obs.visual[row], episode.frames(rows))
        state, action = statistics.state, statistics.action
        assert state is not None
        assert action is not None
        assert episode.state is not None
        assert episode.actions is not None
        assert batch.state is not None
        np.testing.assert_allclose(batch.state[row], (episode.state[rows] - state.mean) / state.std, rtol=1e-6)
        for k in range(4):
            for f in range(5):
                expected = (episode.actions[rows[k] + f] - action.mean) / action.std
                np.testing.assert_allclose(batch.actions[row, k, 2 * f : 2 * f + 2], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(batch.obs.proprio, batch.state)
    assert batch.has_actions.all()
    assert batch.has_state.all()
    assert batch.weights.tolist() == [1.0, 1.0]


def test_actions_past_the_end_are_zeros() -> None:
    arrays = wall_dataset().reader.read([ClipRef("wall", 0, STEPS - 6, 5, 2)])
    last = arrays["actions"][0, 1]
    assert last[:2].any()  # the action of the last step
    assert not last[2:].any()
    assert arrays["actions"][0, 0].all()


def mixed(tmp_path: Path, labels: str) -> Dataset:
    """Two sources, the second with or without labels."""
    sources = {
        "wall": DinoWmSourceConfig(path=str(wall_folder())),
        "video": DinoWmSourceConfig(path=str(wall_folder()), labels=labels),  # type: ignore[arg-type]
    }
    return Dataset(DataConfig(sources=sources), tmp_path, None)


def test_rows_without_labels_are_zeros_and_marked(tmp_path: Path) -> None:
    dataset = mixed(tmp_path, "none")
    batch = to_batch(dataset.reader.read([ClipRef("wall", 1, 0, 5, 2), ClipRef("video", 1, 0, 5, 2)]))
    assert batch.has_actions.tolist() == [True, False]
    assert batch.has_state.tolist() == [True, False]
    assert batch.state is not None
    for values in (batch.actions, batch.state, batch.obs.proprio):
        assert values is not None
        assert values[0].any()
        assert not values[1].any()
    torch.testing.assert_close(batch.obs.visual[0], batch.obs.visual[1])


def test_a_data_set_without_any_label(tmp_path: Path) -> None:
    sources = {"video": DinoWmSourceConfig(path=str(wall_folder()), labels="none")}
    dataset = Dataset(DataConfig(sources=sources), tmp_path, None)
    assert dataset.statistics.action is None
    assert dataset.action_dim == 0
    batch = to_batch(dataset.reader.read([ClipRef("video", 1, 0, 5, 2)]))
    assert batch.state is None
    assert batch.obs.proprio is None
    assert not batch.has_actions.any()
    assert not batch.has_state.any()


def test_tokens_stand_in_for_pixels(tmp_path: Path) -> None:
    pixels = wall_dataset()
    store = TokenFiles(tmp_path, pixels.sources["wall"], encoder().fingerprint)
    list(store.write(encoder(), [2]))
    refs = [ClipRef("wall", 2, 4, 5, 3)]
    stored = to_batch(ClipReader(pixels.sources, {"wall": store}, pixels.statistics).read(refs))
    online = to_batch(pixels.reader.read(refs))
    assert stored.obs.visual.dtype == torch.float32
    expected = encoder().encode(online.obs.visual).half().float()
    torch.testing.assert_close(stored.obs.visual, expected, rtol=0, atol=1e-3)  # batches of other sizes
    torch.testing.assert_close(stored.actions, online.actions, rtol=0, atol=0)


def test_statistics_are_of_training_episodes_only() -> None:
    dataset = wall_dataset()
    train, held_out = dataset.split["wall"]
    assert len(held_out) == 2
    states = np.concatenate([dataset.sources["wall"].episode(i).state for i in train]).astype(np.float64)
    found = dataset.statistics.state
    assert found is not None
    np.testing.assert_allclose(found.mean, states.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std, states.std(axis=0, ddof=1), rtol=1e-6)
    everything = dataset.sources["wall"].states.reshape(-1, 2)  # type: ignore[attr-defined]
    assert not np.allclose(found.mean, everything.mean(axis=0), rtol=1e-4)


def test_statistics_by_hand() -> None:
    found = vector_statistics([np.array([[1.0, 5.0]]), np.array([[3.0, 5.0], [5.0, 5.0]])])
    np.testing.assert_allclose(found.mean, [3, 5])
    np.testing.assert_allclose(found.std, [2, MIN_STD])
    normal = found.normalize(np.array([[5.0, 5.0, 1.0, 5.0]]))  # two steps, tiled
    np.testing.assert_allclose(normal, [[1, 0, -1, 0]])
    np.testing.assert_allclose(found.denormalize(normal), [[5, 5, 1, 5]])
    assert "two recorded steps" in user_error(lambda: vector_statistics([np.ones((1, 2))]))


def test_statistics_survive_json() -> None:
    found = wall_dataset().statistics
    back = DataStatistics.from_json(found.to_json())
    assert back.to_json() == found.to_json()
    assert (back.action_names, back.state_names) == (("dx", "dy"), ("x", "y"))
    assert back.action is not None
    assert found.action is not None
    np.testing.assert_array_equal(back.action.std, found.action.std)
    hidden = DataStatistics(None, None, None)
    assert DataStatistics.from_json(hidden.to_json()) == hidden


def test_clips_of_each_half() -> None:
    dataset = wall_dataset()
    train, held_out = dataset.split["wall"]
    assert {ref.episode for ref in dataset.train_clips(4)[""]} == set(train)
    assert {ref.episode for ref in dataset.probe_clips(4)} == set(train)
    assert {ref.episode for ref in dataset.held_out_clips(4)} == set(held_out)
    assert dataset.held_out_episodes() == [("wall", index) for index in held_out]
    assert len(dataset.train_clips(4)[""]) == len(train) * (STEPS - 20 + 1)
    assert len(dataset.held_out_clips(4)) == len(held_out) * (STEPS - 16 + 1)
    assert dataset.action_dim == 10


def test_episodes_too_short_for_the_horizons() -> None:
    message = user_error(lambda: wall_dataset().held_out_clips(9))
    for part in ("evaluate.horizons", "9 frames", "frameskip 5", "41 env steps", "has 40"):
        assert part in message
    assert len(wall_dataset(clip=ClipConfig(frameskip=4)).held_out_clips(9)) > 0


def test_a_split_with_an_empty_half_is_refused() -> None:
    message = user_error(lambda: wall_dataset(val_fraction=0.99))
    assert "data.sources.wall" in message
    assert "val_fraction" in message


def test_fingerprint_follows_sources_and_split(tmp_path: Path) -> None:
    base = wall_dataset()
    copied = {"wall": DinoWmSourceConfig(path=str(wall_copy(tmp_path / "elsewhere")))}
    assert wall_dataset(sources=copied).fingerprint == base.fingerprint
    others = [wall_dataset(val_fraction=0.2), wall_dataset(split_seed=1), mixed(tmp_path, "none")]
    others.append(wall_dataset(sources={"wall": DinoWmSourceConfig(path="wall", episodes=10)}))
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5
