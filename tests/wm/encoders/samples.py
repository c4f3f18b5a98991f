"""Every encoder, small: random weights saved as a download would lie on disk, and a config that reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wm.build import build_encoder
from wm.config.encoder import (
    CustomEncoderConfig,
    Dinov2EncoderConfig,
    Dinov3EncoderConfig,
    ResnetEncoderConfig,
    TinyEncoderConfig,
    VJepa2EncoderConfig,
)
from wm.contracts import Encoder
from wm.encoders import torchvision_shim

torchvision_shim.install()  # the tests import transformers themselves

VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def dinov2() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**VIT, image_size=56, patch_size=14))


def dinov2_registers() -> Any:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    shape = Dinov2WithRegistersConfig(**VIT, image_size=56, patch_size=14, num_register_tokens=2)
    return Dinov2WithRegistersModel(shape)


def dinov3() -> Any:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(DINOv3ViTConfig(**VIT, intermediate_size=48, num_register_tokens=4))


def vjepa2() -> Any:
    from transformers import VJEPA2Config, VJEPA2Model

    predictor = {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    return VJEPA2Model(VJEPA2Config(**VIT, **predictor, crop_size=32, mlp_ratio=2.0, initializer_range=0.2))


def resnet() -> Any:
    from transformers import ResNetConfig, ResNetModel

    shape = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return ResNetModel(ResNetConfig(**shape))


class MeanColour:
    """A custom encoder without weights: the mean colour of each quarter of the frame."""

    dim = 3
    grid = (2, 2)

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.fingerprint = f"mean colour {gain}"

    def encode(self, frames: Tensor) -> Tensor:
        if frames.dtype != torch.uint8:
            raise TypeError("frames must be uint8")
        pixels = frames.flatten(0, 1).permute(0, 3, 1, 2).double() / 255
        means = torch.nn.functional.adaptive_avg_pool2d(pixels, 2).float() * self.gain
        return means.flatten(2).transpose(1, 2).unflatten(0, frames.shape[:2])


class Sample(NamedTuple):
    """One encoder of the contract suite.

    Args:
        network: makes random weights; None when the config needs none.
        changes: settings each of which changes the tokens, so that the fingerprint must change too.
    """

    config: type[Any]
    values: dict[str, Any]
    changes: tuple[dict[str, Any], ...]
    network: Callable[[], Any] | None = None


_TINY = {"image_size": 42, "hidden_size": 16, "depth": 2, "heads": 4}
_DINOV2: tuple[Any, dict[str, Any], Any] = (
    Dinov2EncoderConfig,
    {"image_size": 64, "encode_size": 42},
    ({"image_size": 56}, {"encode_size": 28}, {"tokens": "cls"}),
)
_DINOV3: tuple[Any, dict[str, Any], Any] = (Dinov3EncoderConfig, {"image_size": 48}, ({"image_size": 32},))
_VJEPA2 = {"image_size": 48, "resize_size": 48}
_RESNET = {"image_size": 64, "resize_size": 64}
SAMPLES: dict[str, Sample] = {
    "tiny": Sample(TinyEncoderConfig, _TINY, ({"seed": 1}, {"image_size": 28}, {"depth": 1}, {"heads": 2})),
    "dinov2": Sample(*_DINOV2, dinov2),
    "dinov2 with registers": Sample(*_DINOV2, dinov2_registers),
    "dinov2 cls": Sample(Dinov2EncoderConfig, {**_DINOV2[1], "tokens": "cls"}, ({"tokens": "patch"},), dinov2),
    "dinov3": Sample(*_DINOV3, dinov3),
    "dinov3 cls": Sample(Dinov3EncoderConfig, {**_DINOV3[1], "tokens": "cls"}, ({"tokens": "patch"},), dinov3),
    "vjepa2 frame": Sample(
        VJepa2EncoderConfig,
        {**_VJEPA2, "mode": "frame"},
        ({"mode": "video"}, {"image_size": 32}, {"resize_size": 55}),
        vjepa2,
    ),
    "vjepa2 video": Sample(
        VJepa2EncoderConfig, {**_VJEPA2, "mode": "video"}, ({"mode": "frame"}, {"window": 2}), vjepa2
    ),
    "resnet18 pooled": Sample(
        ResnetEncoderConfig, {**_RESNET, "tokens": "pooled"}, ({"tokens": "patch"}, {"resize_size": 70}), resnet
    ),
    "resnet18 patch": Sample(
        ResnetEncoderConfig, {**_RESNET, "tokens": "patch"}, ({"image_size": 32, "resize_size": 64},), resnet
    ),
    "custom": Sample(
        CustomEncoderConfig, {"target": "tests.wm.encoders.samples:MeanColour"}, ({"config": {"gain": 2.0}},)
    ),
}
TEMPORAL = {"vjepa2 video"}


def saved(network: Callable[[], Any], folder: Path) -> Path:
    """Random weights of an architecture, written once."""
    place = folder / network.__name__
    if not place.exists():
        torch.manual_seed(0)
        network().save_pretrained(place)
    return place


def make(name: str, folder: Path, weights: Path | None = None, **changes: Any) -> Encoder:
    """The encoder of a sample, with other weights or settings where they are given."""
    sample = SAMPLES[name]
    values = {**sample.values, **changes}
    if sample.network is not None:
        values["weights"] = str(weights or saved(sample.network, folder))
    return build_encoder(sample.config(**values))


def nudged(folder: Path, target: Path) -> Path:
    """A copy of saved weights in which one number of each tensor that encodes is another."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    name = next(key for key in sorted(weights) if weights[key].is_floating_point() and "predictor" not in key)
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def some_frames(batch: int = 2, time: int = 3, height: int = 50, width: int = 70) -> Tensor:
    """Noise, the same each time."""
    shape = (batch, time, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
