"""Every probe where the answer is known: latents that are the state, noise, or always the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.data.samples import feature_source, user_error, wall_copy, wall_dataset, wall_root
from wm.build import build_encoder, build_world
from wm.config.data import DataConfig, DinoWmSourceConfig
from wm.config.encoder import TinyEncoderConfig
from wm.config.probes import ProbesConfig
from wm.config.worlds import PushTWorldConfig, WallWorldConfig
from wm.data.dataset import Dataset
from wm.evaluation.control_features import control_tokens, pixels, random_patches
from wm.evaluation.drawn_frames import DrawnFrames, goal_distances
from wm.evaluation.encoder_probes import (
    latents_of,
    probe_encoder,
    probe_metrics,
    rank_correlation,
    shift_neighbours,
    time_neighbour,
    tokens_of,
)
from wm.evaluation.probe_frames import HeldOutFrames, ProbeFrames, prepare_probes

WALL = WallWorldConfig(frame_size=28, layout="random")
SMALL = {"fit_frames": 60, "frames_per_episode": 12, "drawn_episodes": 2, "drawn_states": 6, "fresh_states": 10}


def prepared(root: Path, worlds: Any = None, labels: Any = "all", seed: int = 0) -> ProbeFrames:
    config = ProbesConfig(**SMALL, seed=seed, worlds=worlds or {})
    sources = {"wall": DinoWmSourceConfig(path="wall", labels=labels)}
    return prepare_probes(Dataset(DataConfig(sources=sources, val_fraction=0.4), root, None), config, build_world)


@cache
def frames(labels: str = "all", seed: int = 0) -> ProbeFrames:
    return prepared(wall_root(), labels=labels, seed=seed)


def where_the_dot_is(images: Tensor) -> Tensor:
    """The reddest place: (n, 1, 2), as good as the state on this world, whatever the wall."""
    values = images.double()
    red = (values[..., 0] - values[..., 1:].mean(dim=-1)).clamp_min(0)
    axis = torch.arange(images.shape[1]).double()
    total = red.sum(dim=(1, 2)).clamp_min(1e-9)
    x, y = (red.sum(dim=1) @ axis) / total, (red.sum(dim=2) @ axis) / total
    return torch.stack([x, y], dim=1)[:, None].float()


def noise(images: Tensor) -> Tensor:
    return torch.randn(len(images), 4, 8, generator=torch.Generator().manual_seed(images.sum().item() % 1000))


def constant(images: Tensor) -> Tensor:
    return torch.ones(len(images), 4, 8)


def test_latents_that_are_the_state_score_almost_one() -> None:
    found = probe_metrics(frames(), where_the_dot_is)
    assert found["probe/wall/state_r2"] > 0.99
    assert found["probe/wall/goal_rank"] > 0.97
    assert found["probe/wall/goal_rank_fresh"] > 0.97
    assert found["probe/wall/time_neighbour"] > 0.7
    assert found["probe/wall/shift_neighbour_light"] > 0.8
    assert found["probe/state_r2"] == found["probe/wall/state_r2"]


@pytest.mark.parametrize("tokens", [noise, constant])
def test_latents_that_say_nothing_score_chance(tokens: Any) -> None:
    found = probe_metrics(frames(), tokens)
    assert found["probe/wall/state_r2"] < 0.15
    for metric in ("goal_rank", "goal_rank_fresh"):
        assert abs(found[f"probe/wall/{metric}"]) < 0.25
    for metric in ("time_neighbour", "shift_neighbour"):
        assert found[f"probe/wall/{metric}"] == pytest.approx(found[f"probe/wall/{metric}_chance"], abs=0.12)
    if tokens is constant:
        assert found["probe/wall/goal_rank"] == 0
        assert found["probe/wall/shift_neighbour"] == pytest.approx(found["probe/wall/shift_neighbour_chance"])


def test_pictures_are_the_same_again_and_others_by_another_seed() -> None:
    again, other = frames.__wrapped__(), frames(seed=1)
    (one,), (two,), (three,) = frames().sources, again.sources, other.sources
    np.testing.assert_array_equal(one.fit_frames, two.fit_frames)
    np.testing.assert_array_equal(one.drawn[0].fresh, two.drawn[0].fresh)
    assert not np.array_equal(one.fit_frames, three.fit_frames)
    assert probe_metrics(frames(), noise) == probe_metrics(again, noise)


def test_the_halves_stay_apart() -> None:
    (source,) = frames().sources
    dataset = wall_dataset(val_fraction=0.4)
    train, held_out = dataset.split["wall"]
    assert [each.id for each in source.episodes] == [dataset.sources["wall"].episode(i).id for i in sorted(held_out)]
    recorded = {f.tobytes() for i in train for f in dataset.sources["wall"].episode(i).frames(range(40))}
    assert all(each.tobytes() in recorded for each in source.fit_frames)
    assert len(source.fit_frames) == 60
    assert len(set(source.fit_groups)) == len(train)


def test_drawn_pictures_are_the_recorded_states() -> None:
    (source,) = frames().sources
    drawn = source.drawn[0]
    recorded = next(each for each in source.episodes if each.id == drawn.id).frames
    assert {each.tobytes() for each in drawn.plain} <= {each.tobytes() for each in recorded}
    assert sorted(drawn.shifted) == ["agent_size", "background", "colours", "light"]
    assert not frames().notes


def test_without_states_the_time_probe_alone() -> None:
    found = frames("none")
    assert set(probe_metrics(found, where_the_dot_is)) == {
        f"probe/{where}time_neighbour{what}" for where in ("", "wall/") for what in ("", "_chance")
    }
    assert found.notes == ("wall: no states: the time probe alone",)


def test_without_a_known_world_no_distances(tmp_path: Path) -> None:
    (wall_copy(tmp_path / "data" / "wall") / "recipe.json").unlink()
    found = prepared(tmp_path)
    assert {name.split("/")[-1] for name in probe_metrics(found, where_the_dot_is)} == {
        "state_r2",
        "time_neighbour",
        "time_neighbour_chance",
    }
    assert "probes.worlds.wall=KIND" in found.notes[0]
    named = prepared(tmp_path, {"wall": WALL})
    assert probe_metrics(named, where_the_dot_is) == probe_metrics(frames(), where_the_dot_is)
    wrong = prepared(tmp_path, {"wall": PushTWorldConfig(frame_size=28)})
    assert "its state has no" in wrong.notes[0]
    assert "probe/wall/state_r2" in probe_metrics(wrong, where_the_dot_is)


def test_a_world_that_draws_otherwise_is_noted(tmp_path: Path) -> None:
    wall_copy(tmp_path / "data" / "wall")
    found = prepared(tmp_path, {"wall": WALL.model_copy(update={"shift": "colours"})})
    assert "draws its states otherwise than they were recorded" in found.notes[0]
    assert sorted(found.sources[0].drawn[0].shifted) == ["agent_size", "background", "light"]


def test_a_damaged_recipe_is_noted(tmp_path: Path) -> None:
    (wall_copy(tmp_path / "data" / "wall") / "recipe.json").write_text('{"world_config": {"kind": "moon"}}')
    assert "recipe.json cannot be read" in prepared(tmp_path).notes[0]


def test_what_cannot_be_judged_is_one_line() -> None:
    dataset = wall_dataset(val_fraction=0.4)
    config = ProbesConfig(worlds={"wal": WALL})
    assert "Did you mean 'wall'?" in user_error(lambda: prepare_probes(dataset, config, build_world))


def test_rank_correlation_by_hand() -> None:
    latents = np.array([[0.0], [1.0], [3.0], [2.0]])
    distances = np.array([[np.nan, 1.0, 2.0, 3.0], [np.nan, 5.0, 5.0, 5.0]])
    assert rank_correlation(latents, np.array([0, 0]), distances) == pytest.approx(0.5)  # ranks 1 3 2 and 1 2 3
    assert np.isnan(rank_correlation(latents, np.array([0]), distances[1:]))
    assert rank_correlation(latents * 0, np.array([0]), distances[:1]) == 0


def held_out(values: list[int]) -> HeldOutFrames:
    pictures = np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return HeldOutFrames("e", np.arange(len(values)), pictures, None, np.array([0]), None)


def test_time_neighbours_by_hand() -> None:
    episode = held_out([0, 1, 2, 9])
    latents = np.array([[0.0], [1.0], [2.0], [0.1]])
    hit, chance = time_neighbour(episode, latents, 1)  # 0 and 1 are nearest to the last, that to 0, and 2 to 1
    assert (hit, chance) == (0.25, pytest.approx(0.5))
    assert time_neighbour(episode, latents, 3) == (1, 1)


def test_the_same_picture_again_is_no_neighbour() -> None:
    still = held_out([5, 5, 5, 6, 7, 8])
    hit, _ = time_neighbour(still, np.array([[0.0], [0.0], [0.0], [9.0], [10.0], [11.0]]), 1)
    assert hit == 1  # 5 is nearest to 6, which follows its last showing
    assert np.isnan(time_neighbour(held_out([5, 5, 5]), np.zeros((3, 1)), 1)[0])


def test_shift_neighbours_by_hand() -> None:
    drawn = held_out([10, 20, 30]).frames
    moved = drawn[[0, 2]] + np.array([[[[1]]], [[[9]]]], np.uint8)
    none = np.zeros((0, 2, 2, 3), np.uint8)
    found = DrawnFrames("e", drawn, {"light": (np.array([0, 1]), moved)}, none, np.zeros(0, int), np.zeros((0, 0)))
    value = shift_neighbours(found, lambda images: images[:, 0, :1, :1].float())
    assert value == {
        "light": (0.5, pytest.approx(1 / 3))
    }  # 11 is nearest to 10; 39, which is state 20, is nearest to 30


def test_distances_leave_velocities_and_trembling_out() -> None:
    world = build_world(PushTWorldConfig(frame_size=28))
    states = np.tile([100.0, 100, 200, 200, 1, 0, 0], (4, 1))
    states[1:, 0] += [100, 100.01, 50]
    states[3, 5] = 1000
    found = goal_distances(world, states, [0])
    assert np.isnan(found[0, 0])
    assert found[0, 1:].tolist() == [1000, 1000, 500]
    assert np.isnan(goal_distances(world, states[[0, 0]], [0])).all()
    world.close()


def test_controls_have_as_many_values() -> None:
    untrained = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=24, depth=1, heads=2))
    images = torch.randint(0, 255, (3, 56, 56, 3), dtype=torch.uint8)
    sizes = {name: tuple(each(images).shape) for name, each in control_tokens(untrained, 28).items()}
    assert sizes == {"untrained": (3, 4, 24), "pixels": (3, 36, 3), "patches": (3, 4, 24)}
    with pytest.raises(ValueError, match="does not divide"):
        control_tokens(untrained, 29)


def test_patches_are_projected_alike_wherever_they_are() -> None:
    images = torch.randint(0, 255, (2, 28, 28, 3), dtype=torch.uint8)
    moved = images.roll(14, dims=2)
    found, other = (random_patches(28, 14, 8)(each) for each in (images, moved))
    torch.testing.assert_close(found[:, [1, 0, 3, 2]], other)
    assert not torch.equal(found, random_patches(28, 14, 8, seed=1)(images))
    image = pixels(12)(images)
    assert image.shape == (2, 4, 3)
    assert -1 <= float(image.min()) <= float(image.max()) <= 1


def test_encoders_of_the_platform_are_shown_single_pictures() -> None:
    encoder = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=16, depth=1, heads=2))
    (source,) = frames().sources
    found = latents_of(tokens_of(encoder), source.fit_frames)
    expected = encoder.encode(torch.from_numpy(source.fit_frames)[None])[0].flatten(1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    scores = probe_encoder(frames(), tokens_of(encoder))
    assert scores.value("wall", "state_r2") == scores.metrics["probe/wall/state_r2"]
    assert list(scores.targets["wall"]) == ["x", "y"]


def test_features_are_refused(tmp_path: Path) -> None:
    del tmp_path

    class Features:
        has_pixels = False
        features = {"seen": feature_source()}

    assert "holds features" in user_error(lambda: prepare_probes(Features(), ProbesConfig(), build_world))  # type: ignore[arg-type]
