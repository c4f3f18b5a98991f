"""What every encoder promises. A new one joins by a line in `ENCODERS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wm.config.encoder import Dinov2EncoderConfig, TinyEncoderConfig
from wm.contracts import Encoder
from wm.encoders import torchvision_shim
from wm.encoders.vit import dinov2_encoder, tiny_encoder

torchvision_shim.install()  # the tests import transformers themselves

SHAPE = {"image_size": 56, "patch_size": 14, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def _saved(folder: Path, registers: bool) -> Path:
    """A DINOv2 with random weights, written once as a download would lie on disk."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    place = folder / ("registers" if registers else "plain")
    if not place.exists():
        torch.manual_seed(0)
        if registers:
            network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SHAPE, num_register_tokens=2))
        else:
            network = Dinov2Model(Dinov2Config(**SHAPE))
        network.save_pretrained(place)
    return place


def _dinov2(folder: Path, registers: bool) -> Encoder:
    weights = _saved(folder, registers)
    return dinov2_encoder(Dinov2EncoderConfig(weights=str(weights), image_size=64, encode_size=42))


ENCODERS: dict[str, Callable[[Path], Encoder]] = {
    "tiny": lambda folder: tiny_encoder(TinyEncoderConfig(image_size=42, hidden_size=16, depth=2)),
    "dinov2": lambda folder: _dinov2(folder, registers=False),
    "dinov2 with registers": lambda folder: _dinov2(folder, registers=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=ENCODERS)
def make(request: pytest.FixtureRequest, folder: Path) -> Callable[[], Encoder]:
    return lambda: ENCODERS[request.param](folder)


@pytest.fixture
def encoder(make: Callable[[], Encoder]) -> Encoder:
    return make()


def some_frames(batch: int = 2, time: int = 3, height: int = 50, width: int = 70) -> Tensor:
    shape = (batch, time, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_is_an_encoder(encoder):
    assert isinstance(encoder, Encoder)
    assert encoder.fingerprint
    assert encoder.dim > 0


@pytest.mark.parametrize("size", [(50, 70), (70, 50), (42, 42), (20, 30), (224, 224)])
def test_patch_tokens_of_any_frame(encoder, size):
    tokens = encoder.encode(some_frames(2, 3, *size))
    assert tokens.shape == (2, 3, encoder.grid[0] * encoder.grid[1], encoder.dim)
    assert tokens.dtype == torch.float32
    assert torch.isfinite(tokens).all()


def test_frozen(encoder):
    assert not encoder.encode(some_frames()).requires_grad
    with torch.enable_grad():
        assert not encoder.encode(some_frames()).requires_grad
    if isinstance(encoder, nn.Module):
        assert not any(p.requires_grad for p in encoder.parameters())


def test_training_mode_does_not_reach_it(encoder):
    """Fault: a world model that holds its encoder and is set to train would switch it to training too."""
    before = encoder.encode(some_frames())
    if isinstance(encoder, nn.Module):
        nn.Sequential(encoder).train()
        assert not any(module.training for module in encoder.modules())
    assert torch.equal(encoder.encode(some_frames()), before)


def test_the_same_frames_give_the_same_tokens(make, encoder):
    tokens = encoder.encode(some_frames())
    assert torch.equal(encoder.encode(some_frames()), tokens)
    other = make()
    assert other.fingerprint == encoder.fingerprint
    assert torch.equal(other.encode(some_frames()), tokens)


def test_a_batch_is_its_frames(encoder):
    """Also beyond the number of frames that are encoded at once."""
    frames = some_frames(4, 17)
    tokens = encoder.encode(frames)
    for clip, frame in ((0, 0), (0, 16), (3, 12), (3, 16)):
        alone = encoder.encode(frames[clip, frame][None, None])
        torch.testing.assert_close(tokens[clip, frame], alone[0, 0], rtol=0, atol=1e-5)


def test_frames_matter(encoder):
    tokens = encoder.encode(some_frames())
    assert not torch.equal(tokens[0, 0], tokens[0, 1])
    assert (tokens[0, 0, 1:] - tokens[0, 0, :1]).abs().amax(dim=-1).min() > 0  # patches differ from one another


def test_frames_are_left_as_they_were(encoder):
    frames = some_frames()
    encoder.encode(frames)
    assert torch.equal(frames, some_frames())


def test_only_uint8_frames_are_taken(encoder):
    with pytest.raises(TypeError, match="uint8"):
        encoder.encode(some_frames().float())
