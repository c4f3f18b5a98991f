"""Decoded pictures are compared with the right frames."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.wm.evaluation.test_latent import Toy, clips, copy, move
from wm.evaluation.decoded import decoded_quality, decoded_strip
from wm.models.decoder import target_images
from wm.types import Batch


class Painter:
    """Paints a frame in one colour: the mean of its patches, as a grey level."""

    image_size = 16

    def __call__(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        grey = visual[..., 0].mean(dim=2) / 64 - 1
        return grey[:, :, None, None, None].expand(-1, -1, 3, 16, 16), torch.zeros(())


def painted(num_clips: int = 3) -> Batch:
    """Frames in the very grey that the painter gives them: whole levels of 255 would round, so latents are made from the frames."""
    batch = clips(num_clips)
    levels = (torch.arange(batch.num_frames) * 20 + 30).expand(num_clips, -1) + torch.arange(num_clips)[:, None]
    tokens = (levels / 255 * 2 * 64)[:, :, None, None].expand(-1, -1, 4, 4)
    images = levels.to(torch.uint8)[:, :, None, None, None].expand(-1, -1, 20, 20, 3)
    step = 20 / 255 * 2 * 64
    return replace(
        batch, obs=replace(batch.obs, visual=tokens), actions=torch.full_like(batch.actions, step), images=images
    )


def test_a_perfect_model_and_one_that_copies() -> None:
    batch, painter = painted(), Painter()
    perfect, copying = (
        decoded_quality(Toy(step), painter, [batch, batch], (1, 3), None)  # type: ignore[arg-type]
        for step in (move, copy)
    )
    for where in ("reconstructed", "pred_h1", "pred_h3"):
        assert perfect[f"img_mse_{where}"] < 1e-9
        assert perfect[f"img_psnr_{where}"] > 80
    assert copying["img_mse_reconstructed"] < 1e-9
    for h in (1, 3):
        assert copying[f"img_l1_pred_h{h}"] == pytest.approx(h * 40 / 255, rel=1e-4)
        assert copying[f"img_psnr_pred_h{h}"] == pytest.approx(-20 * math.log10(h * 40 / 255), abs=1e-2)
    assert not any("lpips" in name for name in perfect)


def test_the_strip() -> None:
    batch = painted(1)
    rows = decoded_strip(Toy(copy), Painter(), batch)  # type: ignore[arg-type]
    assert list(rows) == ["true", "decoded", "predicted, decoded"]
    true, decoded, predicted = rows.values()
    assert true.shape == decoded.shape == predicted.shape == (6, 16, 16, 3)
    np.testing.assert_allclose(true, decoded, atol=1e-5)
    np.testing.assert_allclose(predicted[:2], true[:2], atol=1e-5)
    np.testing.assert_allclose(predicted[2:], np.broadcast_to(true[1:2], (4, 16, 16, 3)), atol=1e-5)
    expected = (target_images(batch.images, 16)[0] / 2 + 0.5).permute(0, 2, 3, 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(true, expected, atol=1e-6)


def test_batches_without_images() -> None:
    model: Any = Toy(copy)
    with pytest.raises(ValueError, match="images"):
        decoded_quality(model, Painter(), [clips()], (1,), None)  # type: ignore[arg-type]
