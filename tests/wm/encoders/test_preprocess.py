"""Pixels to the encoder's input, as the reference does it."""

from __future__ import annotations

import pytest
import torch

from tests.golden.case import GOLDEN, load_case
from tests.golden.data import check_images, check_normalization
from wm.encoders import torchvision_shim
from wm.encoders.preprocess import preprocess, preprocess_imagenet, resize


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


def noise(height: int, width: int) -> torch.Tensor:
    """Smooth noise, so that one filter of resizing or another changes little."""
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def test_imagenet_s_mean_and_deviation_are_transformers_own():
    """A flat picture of each channel's value: (v / 255 - mean) / std."""
    torchvision_shim.install()
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    frames = torch.tensor([[0, 0, 0], [255, 255, 255], [10, 100, 200]], dtype=torch.uint8)
    images = preprocess_imagenet(frames[:, None, None].expand(3, 30, 40, 3), 14, 20)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    expected = (frames[:, :, None, None].float() / 255 - mean) / std
    torch.testing.assert_close(images, expected.expand(3, 3, 14, 14), rtol=1e-6, atol=1e-6)


def test_dinov3_s_images_are_its_processor_s():
    torchvision_shim.install()
    processors = pytest.importorskip("transformers.models.dinov3_vit.image_processing_dinov3_vit")
    frames = noise(160, 160)  # square: there the processor does not squeeze
    expected = processors.DINOv3ViTImageProcessor()(list(frames.permute(0, 3, 1, 2)), return_tensors="pt")
    torch.testing.assert_close(preprocess_imagenet(frames, 224), expected["pixel_values"], rtol=0, atol=1e-5)


def test_vjepa2_s_images_are_its_processor_s():
    """At resize_size 292, but for its resizing of bytes, rounded across and then down: at most one step of 255, over std."""
    torchvision_shim.install()
    processors = pytest.importorskip("transformers.models.vjepa2.video_processing_vjepa2")
    frames = noise(300, 400)
    expected = processors.VJEPA2VideoProcessor()(frames.permute(0, 3, 1, 2), return_tensors="pt")
    found = preprocess_imagenet(frames, 256, 292)
    difference = (found - expected["pixel_values_videos"][0]).abs() * 255 * 0.224
    assert difference.max() < 1.01
    assert difference.mean() < 0.3


def test_the_crop_s_margin_is_what_resize_size_adds():
    frames = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    frames[:, 10:30, 10:30] = 255
    flat = preprocess_imagenet(frames, 20, 40)
    assert (flat == flat[:, :, :1, :1]).all()
    assert not (preprocess_imagenet(frames, 20) == flat).all()
