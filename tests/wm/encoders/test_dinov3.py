"""DINOv3's tokens against transformers' own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.wm.encoders.samples import dinov3, make, saved, some_frames
from wm.config.errors import UserError
from wm.encoders.preprocess import preprocess_imagenet


@torch.no_grad()
def test_cls_and_registers_are_dropped_or_cls_is_kept(tmp_path: Path):
    from transformers import DINOv3ViTModel

    frames = some_frames()
    network = DINOv3ViTModel.from_pretrained(saved(dinov3, tmp_path)).eval()
    expected = network(preprocess_imagenet(frames.flatten(0, 1), 48)).last_hidden_state.unflatten(0, (2, 3))
    assert expected.shape[2] == 1 + 4 + 9
    assert make("dinov3", tmp_path).grid == (3, 3)
    torch.testing.assert_close(make("dinov3", tmp_path).encode(frames), expected[:, :, 5:], rtol=0, atol=1e-6)
    torch.testing.assert_close(make("dinov3 cls", tmp_path).encode(frames), expected[:, :, :1], rtol=0, atol=1e-6)


@torch.no_grad()
def test_cls_of_dinov2_is_the_normed_first_token(tmp_path: Path):
    from transformers import Dinov2Model

    from tests.wm.encoders.samples import dinov2
    from wm.encoders.preprocess import preprocess

    frames = some_frames()
    network = Dinov2Model.from_pretrained(saved(dinov2, tmp_path)).eval()
    expected = network(preprocess(frames.flatten(0, 1), 64, 42)).pooler_output
    tokens = make("dinov2 cls", tmp_path).encode(frames)
    assert tokens.shape == (2, 3, 1, 24)
    torch.testing.assert_close(tokens.flatten(0, 2), expected, rtol=0, atol=1e-6)


def test_a_size_that_patches_do_not_fill_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"encoder\.image_size: 50 is not a multiple of the patch size 16"):
        make("dinov3", tmp_path, image_size=50)
