"""One draw a clip, whoever reads it; the colours by their formulas; nothing where it is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.wm.data.samples import config, inputs, wall_dataset
from wm.config.augment import AugmentConfig
from wm.config.data import DataConfig, PrecomputedSourceConfig
from wm.config.errors import UserError
from wm.config.hashing import train_hash
from wm.data.augmentation import Draw, augmented, draw
from wm.encoders import torchvision_shim

NOTHING = Draw(1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
ALL = {
    "brightness": [0.7, 1.3],
    "contrast": [0.7, 1.3],
    "saturation": [0.5, 1.5],
    "hue": [-0.1, 0.1],
    "crop": [0.7, 1.0],
}


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_a_draw_of_nothing_changes_nothing() -> None:
    frames = picture(2, 8, 6)
    assert np.array_equal(augmented(frames, NOTHING), frames)


@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_brightness_by_its_formula(factor: float) -> None:
    frames = picture(2, 8, 6)
    expected = np.clip(frames.astype(np.float64) * factor, 0, 255)
    np.testing.assert_allclose(augmented(frames, NOTHING._replace(brightness=factor)), expected, atol=0.51)


def test_saturation_and_contrast_of_nought_are_grey() -> None:
    frames = picture(2, 8, 6)
    grey = augmented(frames, NOTHING._replace(saturation=0.0))
    np.testing.assert_allclose(grey[..., 0], frames @ [0.299, 0.587, 0.114], atol=1)
    assert np.array_equal(grey[..., 0], grey[..., 1])
    flat = augmented(frames, NOTHING._replace(contrast=0.0))
    for before, after in zip(grey, flat, strict=True):
        np.testing.assert_allclose(after, before[..., 0].mean(), atol=1)


@pytest.mark.parametrize(
    ("name", "amount"),
    [("brightness", 1.4), ("contrast", 0.6), ("contrast", 1.7), ("saturation", 1.8), ("hue", 0.13), ("hue", -0.4)],
)
def test_colours_are_changed_as_torchvision_does(name: str, amount: float) -> None:
    torchvision_shim.install()
    from torchvision.transforms.v2 import functional

    frames = picture(3, 10, 7)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    theirs = (getattr(functional, f"adjust_{name}")(pictures, amount) * 255).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(augmented(frames, NOTHING._replace(**{name: amount})), theirs, atol=0.51)


def test_a_crop_is_torchvisions() -> None:
    torchvision_shim.install()
    from torchvision.transforms.v2 import functional

    frames = picture(3, 20, 10)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    theirs = functional.resized_crop(pictures, 2, 1, 15, 8, [20, 10]).permute(0, 2, 3, 1).numpy()
    ours = augmented(frames, NOTHING._replace(crop=0.76, down=0.4, right=0.5))  # 15 of 20 rows, 8 of 10 columns
    np.testing.assert_allclose(ours, theirs, atol=0.51)


def test_a_third_of_a_turn_makes_red_green() -> None:
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    turned = augmented(red, NOTHING._replace(hue=1 / 3))
    assert turned[0, 0, 0].tolist() == [0, 255, 0]


def test_a_window_of_half_the_side_is_that_part_scaled() -> None:
    """Four squares of one colour each: a window in the lower right corner shows the fourth alone."""
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    frames[:, 8:, 8:] = 200
    corner = augmented(frames, NOTHING._replace(crop=0.5, down=0.999, right=0.999))
    assert (corner == 200).all()
    assert not augmented(frames, NOTHING._replace(crop=0.5)).any()


def test_draws_keep_to_their_ranges_and_fill_them() -> None:
    wanted = AugmentConfig(**ALL)
    draws = np.array([draw(wanted, 0, step, place) for step in range(40) for place in range(20)])
    low, high = draws.min(axis=0), draws.max(axis=0)
    for column, name in enumerate(("brightness", "contrast", "saturation", "hue", "crop")):
        bounds = getattr(wanted, name)
        span = bounds[1] - bounds[0]
        assert bounds[0] <= low[column] < bounds[0] + 0.02 * span
        assert bounds[1] - 0.02 * span < high[column] <= bounds[1]
    assert np.abs(np.corrcoef(draws.T) - np.eye(7)).max() < 0.15
    one, other = draw(wanted, 0, 3, 4), draw(AugmentConfig(**{**ALL, "hue": [0.0, 0.0]}), 0, 3, 4)
    assert other == one._replace(hue=0.0)  # a range changes only its own draw
    assert len({draw(wanted, *key) for key in ((0, 3, 4), (1, 3, 4), (0, 4, 4), (0, 3, 5))}) == 4


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    """Twice the same frame stays twice the same frame, and another clip is changed otherwise."""
    frame = picture(1, 28, 28)
    clip = np.concatenate([frame, frame])
    first, second = (augmented(clip, draw(AugmentConfig(**ALL), 0, 0, place)) for place in (0, 1))
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first, second)
    assert first.shape == clip.shape
    assert first.dtype == np.uint8


def test_any_number_of_ranks_sees_the_same_global_batch(tmp_path: Path) -> None:
    clips = inputs(tmp_path, data__augment=ALL, train__batch_size=6).clips
    for step in (0, 4):
        whole = clips.read(step)["visual"]
        for ranks in (2, 3):
            parts = [clips.read(step, rank, ranks)["visual"] for rank in range(ranks)]
            for rank, part in enumerate(parts):
                assert np.array_equal(part, whole[rank::ranks])
    several = clips.read_steps(3, 6, 1, 2)["visual"]
    for row, step in enumerate(range(3, 6)):
        assert np.array_equal(several[row], clips.read(step, 1, 2)["visual"])


def test_off_is_what_it_was_and_on_changes_pictures_of_training_clips_alone(tmp_path: Path) -> None:
    plain, changed = inputs(tmp_path), inputs(tmp_path, data__augment=ALL)
    before, after = plain.clips.read(2), changed.clips.read(2)
    assert np.array_equal(before["visual"], plain.dataset.reader.read(plain.clips.schedule.batch_at(2))["visual"])
    assert not np.array_equal(before["visual"], after["visual"])
    assert before.keys() == after.keys()
    for key in before.keys() - {"visual"}:
        assert np.array_equal(before[key], after[key])
    held_out = [run.validator().held_out.obs.visual for run in (plain, changed)]
    assert held_out[0].equal(held_out[1])


def test_it_names_another_run_when_it_is_on() -> None:
    names = [train_hash(config(**given), "data", "encoder") for given in ({}, {"data__augment": {"hue": [0.0, 0.0]}})]
    assert names[0] == names[1]
    assert train_hash(config(data__augment=ALL), "data", "encoder") != names[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hue": [-0.6, 0.1]}, r"augment.*hue: \[-0.6, 0.1\] is no range within \[-0.5, 0.5\]"),
        ({"brightness": [1.2, 0.8]}, "lowest first"),
        ({"contrast": [-1.0, 1.0]}, "contrast"),
        ({"crop": [0.0, 1.0]}, "crop"),
        ({"crop": [0.5, 1.1]}, "crop"),
        ({"crop": ["0.5", 1.0]}, "crop"),
        ({"blur": [0.0, 1.0]}, "blur"),
    ],
)
def test_ranges_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(data__augment=given)


def test_tokens_cannot_be_augmented() -> None:
    with pytest.raises(UserError, match="say tokens=online, which encodes every batch anew, or leave augment out"):
        config(data__augment=ALL, data__tokens="store")
    with pytest.raises(ValueError, match=r"sources\.maze holds features"):
        DataConfig(sources={"maze": PrecomputedSourceConfig(path="x")}, tokens="online", augment=AugmentConfig(**ALL))


def test_the_readers_of_a_data_set_know_nothing_of_it() -> None:
    """Validation, probes and planning problems read through them."""
    on = wall_dataset(augment=AugmentConfig(**ALL), tokens="online")
    off = wall_dataset(tokens="online")
    refs = off.training_clips(2).spread(3, 0)
    assert np.array_equal(on.reader.read(refs)["visual"], off.reader.read(refs)["visual"])
