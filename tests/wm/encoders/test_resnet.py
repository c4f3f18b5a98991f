"""ResNet-18's tokens against transformers' own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.wm.encoders.samples import make, resnet, saved, some_frames
from wm.config.encoder import ResnetEncoderConfig
from wm.config.errors import UserError
from wm.encoders.preprocess import preprocess_imagenet


@torch.no_grad()
def test_places_of_the_last_map_in_reading_order_or_their_mean(tmp_path: Path):
    from transformers import ResNetModel

    network = ResNetModel.from_pretrained(saved(resnet, tmp_path)).eval()
    frames = some_frames()
    features = network(preprocess_imagenet(frames.flatten(0, 1), 64)).last_hidden_state
    assert features.shape == (6, 16, 2, 2)
    patches = make("resnet18 patch", tmp_path).encode(frames)
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        torch.testing.assert_close(patches[:, :, place].flatten(0, 1), features[:, :, row, column], rtol=0, atol=1e-6)
    pooled = make("resnet18 pooled", tmp_path).encode(frames)
    torch.testing.assert_close(pooled, patches.mean(dim=2, keepdim=True), rtol=0, atol=1e-6)


def test_published_sizes():
    """Facts of microsoft/resnet-18: 11.2 M parameters without its classifier, 512 channels, stride 32."""
    from transformers import ResNetConfig, ResNetModel

    from wm.encoders.resnet import FrozenResnet

    network = ResNetModel(
        ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", embedding_size=64)
    )
    encoder = FrozenResnet(network, ResnetEncoderConfig(tokens="patch"))
    assert sum(p.numel() for p in encoder.parameters()) == 11_176_512
    assert encoder.encode(some_frames(1, 1)).shape == (1, 1, 49, 512)


def test_a_size_that_the_stride_does_not_fill_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"encoder\.image_size: 60 is not a multiple of the stride 32"):
        make("resnet18 patch", tmp_path, image_size=60)
