"""Image metrics where the answer is known, and against the reference's numbers."""

from __future__ import annotations

import math

import pytest
import torch

from tests.golden.case import GOLDEN, load_case
from tests.golden.decoders import check_metrics_image
from wm.evaluation.images import ImageScores, structural_similarity


def test_the_references_numbers() -> None:
    check_metrics_image(load_case(GOLDEN / "dino_wm" / "metrics_image.npz"))


def test_a_known_offset() -> None:
    """In [-1, 1] an offset of .2 is one of .1 in [0, 1]: 20 dB there, 6.02 dB less by the reference's peak of 1."""
    frames = torch.rand(3, 3, 16, 16) - 0.5
    scores = ImageScores()
    scores.add(frames[:1] + 0.2, frames[:1])
    scores.add(frames[1:] + 0.2, frames[1:])
    found = scores.metrics()
    assert found["l1"] == pytest.approx(0.2, abs=1e-6)
    assert found["mse"] == pytest.approx(0.04, abs=1e-6)
    assert found["psnr_unit"] == pytest.approx(20, abs=1e-3)
    assert found["psnr"] == pytest.approx(20 - 20 * math.log10(2), abs=1e-3)
    assert "lpips" not in found


def test_pictures_beyond_the_range_are_clamped_for_the_usual_metrics() -> None:
    scores = ImageScores()
    scores.add(torch.full((1, 3, 16, 16), 3.0), torch.ones(1, 3, 16, 16))
    found = scores.metrics()
    assert found["mse"] == 4
    assert found["psnr_unit"] == math.inf
    assert found["ssim_unit"] == pytest.approx(1)


def test_ssim_is_one_only_for_equal_pictures() -> None:
    picture = torch.rand(2, 3, 20, 24)
    torch.testing.assert_close(structural_similarity(picture, picture), torch.ones(2))
    assert (structural_similarity(picture, picture.flip(-1)) < 0.5).all()
    flat, brighter = torch.full((1, 3, 40, 40), 0.5), torch.full((1, 3, 40, 40), 0.6)
    inside = (2 * 0.3 + 1e-4) / (0.25 + 0.36 + 1e-4)  # no variance: luminance alone, but for the border's zeros
    assert float(structural_similarity(flat, brighter)) == pytest.approx(inside, abs=0.01)
