"""Pixels to the encoder's input, as the reference does it."""

from __future__ import annotations

import pytest
import torch

from tests.golden.case import GOLDEN, load_case
from tests.golden.data import check_images, check_normalization
from wm.encoders.preprocess import preprocess, resize


def test_images_and_vectors_are_the_reference_s():
    case = load_case(GOLDEN / "dino_wm" / "preprocessor.npz")
    check_images(case)
    check_normalization(case)


def test_black_grey_and_white():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 40, 60, 3)
    images = preprocess(frames, 28, 14)
    assert images.shape == (2, 3, 14, 14)
    torch.testing.assert_close(images, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 14, 14))


@pytest.mark.parametrize("wide", [True, False])
def test_the_crop_is_the_centre_and_channels_stay(wide):
    """A picture twice as long as wide, black but for its middle: only the middle is left."""
    frames = torch.zeros(1, 20, 40, 3, dtype=torch.uint8)
    frames[:, :, 10:30, 1] = 255
    image = preprocess(frames if wide else frames.transpose(1, 2), 20, 20)[0]
    assert (image[1] == 1).all()
    assert (image[[0, 2]] == -1).all()


@pytest.mark.parametrize(("width", "left"), [(21, 0), (22, 1), (23, 2), (25, 2)])
def test_half_a_pixel_goes_to_the_even_side(width, left):
    frames = torch.zeros(1, 20, width, 3, dtype=torch.uint8)
    frames[:, :, left] = 255
    image = preprocess(frames, 20, 20)[0]
    assert (image[..., 0] == 1).all()
    assert (image[..., 1:] == -1).all()


def test_a_size_that_fits_is_left_alone():
    images = torch.randn(1, 3, 5, 6)
    assert resize(images, 5, 6) is images


def test_only_uint8_is_taken():
    with pytest.raises(TypeError, match=r"must be uint8, got torch\.float32"):
        preprocess(torch.zeros(1, 8, 8, 3), 8, 8)
