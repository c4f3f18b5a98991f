"""Trained weights of the tiny encoder: written and read back; random ones are what they were; what is damaged gets one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import wm.encoders.trained as trained
from tests.wm.data.samples import user_error
from wm.build import build_encoder
from wm.config.encoder import TinyEncoderConfig
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import Layer, resolve
from wm.encoders.vit import tiny_encoder
from wm.pretraining.export import export_encoder

SHAPE: dict[str, Any] = {"image_size": 28, "hidden_size": 16, "depth": 1, "heads": 2}
FRAMES = torch.randint(0, 256, (2, 3, 30, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def source() -> Any:
    return tiny_encoder(TinyEncoderConfig(**SHAPE, seed=7))


@pytest.fixture
def folder(tmp_path: Path, source: Any) -> Path:
    export_encoder(tmp_path / "encoder", source.network, {"image_size": 28, "hash": "abc"})
    return tmp_path / "encoder"


def at(folder: Path, **more: Any) -> TinyEncoderConfig:
    return TinyEncoderConfig(pretrained=str(folder), **more)


def test_random_encoders_are_what_they_have_always_been() -> None:
    """Fingerprints name token stores and runs that exist."""
    assert build_encoder(TinyEncoderConfig(pretrained="none")).fingerprint == "25c4acc9ba81c0fa"
    assert build_encoder(TinyEncoderConfig(**SHAPE)).fingerprint == "44c37843d8b29007"
    old = {"kind": "tiny", "image_size": 84, "patch_size": 14, "hidden_size": 64, "depth": 2, "heads": 4, "seed": 0}
    assert TinyEncoderConfig.model_validate_json(json.dumps(old)) == TinyEncoderConfig(pretrained="none")


def test_written_and_read_back_it_is_the_same_but_for_rounding(folder: Path, source: Any) -> None:
    encoder = build_encoder(at(folder))
    torch.testing.assert_close(encoder.encode(FRAMES), source.encode(FRAMES), rtol=0, atol=0.02)
    assert encoder.grid == (2, 2)
    assert encoder.dim == 16
    assert all(parameter.dtype == torch.float32 for parameter in encoder.network.parameters())  # type: ignore[attr-defined]
    assert all(
        parameter.dtype == torch.float32 for parameter in source.network.parameters()
    )  # the original is left alone
    assert encoder.fingerprint == build_encoder(at(folder)).fingerprint != source.fingerprint


def test_transformers_reads_it_by_itself(folder: Path, source: Any) -> None:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    assert type(network).__name__ == "Dinov2Model"
    for name, value in source.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.half().float())


def test_another_size_is_another_grid(folder: Path) -> None:
    assert build_encoder(at(folder, image_size=56)).encode(FRAMES).shape == (2, 3, 16, 16)
    message = user_error(lambda: build_encoder(at(folder, image_size=30)))
    assert message == "encoder.image_size: 30 is not a multiple of the patch size 14"


def test_a_config_survives_a_round_trip(folder: Path) -> None:
    for config in (at(folder), at(folder, image_size=56), TinyEncoderConfig(), TinyEncoderConfig(**SHAPE)):
        assert TinyEncoderConfig.model_validate_json(config.model_dump_json()) == config
    run = ExperimentConfig(encoder=at(folder))
    assert ExperimentConfig.model_validate_json(run.model_dump_json()) == run


def test_a_shape_beside_weights_is_refused(folder: Path) -> None:
    for field, value in {"hidden_size": 32, "depth": 2, "heads": 2, "patch_size": 14, "seed": 0}.items():
        tree = {"encoder.kind": "tiny", "encoder.pretrained": str(folder), f"encoder.{field}": value}
        message = user_error(lambda tree=tree: resolve([Layer.from_tree("spec", tree)]))
        assert f"{field}: pretrained={folder} brings its own; leave it out" in message


def test_weights_of_another_kind_below_are_not_taken_for_ours() -> None:
    """Keys that two kinds share survive a change of kind; a hub id must not become the tiny encoder's folder."""
    below = Layer.from_tree("spec", {"encoder": {"kind": "dinov2", "weights": "facebook/dinov2-base"}})
    above = Layer.from_tree("command line", {"encoder.kind": "tiny", "encoder.hidden_size": 32})
    encoder = resolve([below, above]).encoder
    assert isinstance(encoder, TinyEncoderConfig)
    assert encoder.is_random


def test_a_shape_or_seed_of_ones_own_is_random() -> None:
    assert TinyEncoderConfig.model_validate({"hidden_size": 32}).pretrained == "none"
    assert TinyEncoderConfig.model_validate({"seed": 3}).pretrained == "none"
    assert TinyEncoderConfig.model_validate({"image_size": 56}).pretrained == "shipped"
    assert TinyEncoderConfig.model_validate({"pretrained": "none"}).depth == 2


def test_weights_that_are_not_shipped_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "nothing")
    message = user_error(lambda: build_encoder(TinyEncoderConfig(pretrained="shipped")))
    assert message.startswith("encoder.pretrained=shipped: this copy of wm comes without trained weights")


def test_shipped_weights_are_those_of_their_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "SHIPPED", folder)
    assert build_encoder(TinyEncoderConfig(pretrained="shipped")).fingerprint == build_encoder(at(folder)).fingerprint


def test_what_is_shipped_is_whole_and_small() -> None:
    about = trained.about_trained(trained.SHIPPED)
    encoder = build_encoder(TinyEncoderConfig())
    assert (encoder.grid, encoder.dim) == ((6, 6), 128)
    assert encoder.fingerprint == build_encoder(TinyEncoderConfig(pretrained="shipped")).fingerprint
    assert {"wall", "pusht", "point_maze", "rope", "granular", "lift", "can", "stack"} == set(about["sources"].values())
    assert about["licence"] == "MIT"
    card = (trained.SHIPPED / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (about["hash"], about["commit"], about["data_fingerprint"], f"step {about['step']}"):
        assert words in card, words
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (trained.SHIPPED / picture).is_file(), picture
    assert sum(file.stat().st_size for file in trained.SHIPPED.iterdir()) < 12e6


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = user_error(lambda: build_encoder(at(tmp_path / "nowhere")))
    assert "nowhere: no such folder, so no encoder.json; expected none, shipped, or a folder" in message


def test_a_folder_of_somebody_else(tmp_path: Path, source: Any) -> None:
    source.network.save_pretrained(tmp_path)
    message = user_error(lambda: build_encoder(at(tmp_path)))
    assert "a folder without encoder.json" in message
    assert "encoder.kind=dinov2" in message


def test_damage_is_one_line(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "model.safetensors: missing or damaged (its checksum differs)" in user_error(
        lambda: build_encoder(at(folder))
    )
    file.unlink()
    assert "model.safetensors: missing or damaged" in user_error(lambda: build_encoder(at(folder)))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', '{"format": 1, "image_size": "a"}', '{"format": 2, "image_size": 28}'],
)
def test_a_damaged_description_is_one_line(folder: Path, text: str) -> None:
    (folder / "encoder.json").write_text(text)
    message = user_error(lambda: build_encoder(at(folder)))
    assert message.startswith(f"{folder / 'encoder.json'}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"hidden_size": 32}, {"model_type": "nonsense"}])
def test_a_config_json_of_another_network_is_one_line(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    if "model_type" in change:
        build_encoder(at(folder))  # the class is known; what it says it is does not matter
        return
    message = user_error(lambda: build_encoder(at(folder)))
    assert message.startswith(f"{folder}: damaged (")
    assert len(message.splitlines()) == 1
