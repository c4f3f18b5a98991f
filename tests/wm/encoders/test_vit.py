"""Where weights come from, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wm.config.encoder import Dinov2EncoderConfig, TinyEncoderConfig
from wm.config.errors import UserError
from wm.encoders import torchvision_shim
from wm.encoders.preprocess import preprocess
from wm.encoders.vit import dinov2_encoder, tiny_encoder

torchvision_shim.install()  # the tests import transformers themselves

SHAPE = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FRAMES = torch.randint(0, 256, (2, 3, 30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 with random weights, as a download would lie on disk."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(Dinov2Config(**SHAPE)).save_pretrained(place)
    return place


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(weights: Path | str, image_size: int = 42, encode_size: int = 28):
    return dinov2_encoder(Dinov2EncoderConfig(weights=str(weights), image_size=image_size, encode_size=encode_size))


@torch.no_grad()
def test_tokens_are_transformers_own_without_the_first(folder):
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder).eval()
    expected = network(pixel_values=preprocess(FRAMES.flatten(0, 1), 42, 28)).last_hidden_state
    assert expected.shape[1] == 1 + 4
    tokens = load(folder).encode(FRAMES)
    torch.testing.assert_close(tokens, expected[:, 1:].unflatten(0, (2, 3)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_registers_are_dropped_too(tmp_path):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SHAPE, num_register_tokens=3)).eval()
    network.save_pretrained(tmp_path)
    expected = network(pixel_values=preprocess(FRAMES.flatten(0, 1), 42, 28)).last_hidden_state
    assert expected.shape[1] == 1 + 3 + 4
    torch.testing.assert_close(load(tmp_path).encode(FRAMES), expected[:, 4:].unflatten(0, (2, 3)), rtol=0, atol=1e-6)


def test_patches_are_in_reading_order(folder):
    """The picture's lower left corner changes most the token of the lower left patch."""
    encoder = load(folder, 28, 28)
    frames = torch.zeros(1, 1, 28, 28, 3, dtype=torch.uint8)
    changed = frames.clone()
    changed[:, :, 14:, :14] = 255
    moved = (encoder.encode(changed) - encoder.encode(frames)).norm(dim=-1)[0, 0]
    assert moved.argmax() == 2


def test_weights_of_half_precision_become_float32(folder, spoilt):
    halves = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, spoilt / "model.safetensors", metadata={"format": "pt"})
    config = (spoilt / "config.json").read_text()
    (spoilt / "config.json").write_text(config.replace('"float32"', '"bfloat16"'))
    encoder = load(spoilt)
    assert encoder.encode(FRAMES).dtype == torch.float32
    assert encoder.fingerprint != load(folder).fingerprint


def test_the_fingerprint_is_of_weights_and_preprocessing(folder, spoilt):
    base = load(folder).fingerprint
    assert load(folder).fingerprint == base == load(spoilt).fingerprint  # where they lie does not matter
    assert load(folder, image_size=56).fingerprint != base
    assert load(folder, encode_size=42).fingerprint != base
    weights = load_file(spoilt / "model.safetensors")
    weights["layernorm.bias"][0] += 1e-6
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    assert load(spoilt).fingerprint != base


@pytest.mark.parametrize("change", [{"seed": 1}, {"image_size": 28}, {"depth": 1}, {"heads": 2}], ids=str)
def test_another_tiny_encoder_has_another_fingerprint(change):
    small = {"image_size": 42, "hidden_size": 16, "depth": 2, "heads": 4}
    base = tiny_encoder(TinyEncoderConfig(**small))
    other = tiny_encoder(TinyEncoderConfig(**{**small, **change}))
    assert other.fingerprint != base.fingerprint


def test_drawing_the_tiny_one_leaves_the_generator_alone():
    torch.manual_seed(3)
    tiny_encoder(TinyEncoderConfig(depth=1))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_a_size_that_patches_do_not_fill_is_refused(folder):
    with pytest.raises(UserError, match=r"encoder\.encode_size: 30 is not a multiple of the patch size 14"):
        load(folder, encode_size=30)


def refusal(weights: Path | str) -> str:
    with pytest.raises(UserError) as raised:
        load(weights)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("encoder.weights: no DINOv2 found in ")
    for way_out in ("encoder.weights=FOLDER", "HF_HOME", "encoder.kind=tiny"):
        assert way_out in message
    return message


def test_missing_weights_have_three_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "the hub's cache for 'nobody/has-this'" in refusal("nobody/has-this")
    assert f"the folder {tmp_path}" in refusal(tmp_path)


def test_damaged_weights_are_refused(spoilt):
    (spoilt / "model.safetensors").write_bytes(b"x" * 100)
    refusal(spoilt)
    (spoilt / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(spoilt)


def test_weights_that_lack_a_layer_are_refused(folder, spoilt):
    """Fault: transformers would draw the rest at random and go on, and the frozen encoder be a random one."""
    rest = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1." not in k}
    save_file(rest, spoilt / "model.safetensors", metadata={"format": "pt"})
    assert "of its weights are missing" in refusal(spoilt)


def test_weights_of_another_size_are_refused(spoilt):
    config = (spoilt / "config.json").read_text()
    (spoilt / "config.json").write_text(config.replace('"hidden_size": 16', '"hidden_size": 32'))
    refusal(spoilt)
