"""Every encoder at its published size with random weights on one CPU thread: shapes, parameters, CPU time an image.

python -m tests.benchmarks.encoders [part of a name ...]

Architectures are those of the published config.json files. What needs more than MEMORY_GIB is skipped, and said so.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from wm.config.encoder import (
    Dinov2EncoderConfig,
    Dinov3EncoderConfig,
    EncoderConfig,
    ResnetEncoderConfig,
    VJepa2EncoderConfig,
)
from wm.contracts import Encoder
from wm.encoders import torchvision_shim, vit, vjepa2
from wm.encoders.resnet import FrozenResnet

MEMORY_GIB = 8.0
BYTES = 4
WORKING = 1.5  # GiB beside the weights: activations of one image, torch and transformers themselves


class Size(NamedTuple):
    """One published network.

    Args:
        name: the hub's, without its owner.
        network: makes it with random weights.
        millions: parameters of what encodes, to decide whether it fits before it is made.
    """

    name: str
    config: EncoderConfig
    network: Callable[[], Any]
    millions: float


def _dinov2(width: int, depth: int, heads: int, registers: bool) -> Any:
    import transformers

    shape = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "image_size": 518}
    if registers:
        return transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**shape, patch_size=14, num_register_tokens=4)
        )
    return transformers.Dinov2Model(transformers.Dinov2Config(**shape, patch_size=14))


def _dinov3(width: int, depth: int, heads: int) -> Any:
    import transformers

    shape = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**shape, intermediate_size=4 * width, num_register_tokens=4, image_size=224)
    )


def _vjepa2(width: int, depth: int, heads: int, mlp_ratio: float, crop_size: int = 256) -> Any:
    import transformers
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

    shape = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "mlp_ratio": mlp_ratio}
    config = transformers.VJEPA2Config(**shape, crop_size=crop_size)
    config._attn_implementation = "sdpa"  # as from_pretrained chooses
    return VJEPA2Encoder(config)


def _resnet18() -> Any:
    import transformers

    shape = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
    return transformers.ResNetModel(transformers.ResNetConfig(**shape))


VITS = {"small": (384, 12, 6, 22), "base": (768, 12, 12, 87), "large": (1024, 24, 16, 304)}
VJEPAS = {"vitl": (1024, 24, 16, 4.0, 303), "vith": (1280, 32, 16, 4.0, 633), "vitg": (1408, 40, 22, 48 / 11, 1012)}


def sizes() -> list[Size]:
    """Every row of the table."""
    rows: list[Size] = []
    for name, (width, depth, heads, millions) in VITS.items():
        shape = (width, depth, heads)
        rows.append(Size(f"dinov2-{name}", Dinov2EncoderConfig(), partial(_dinov2, *shape, False), millions))
        registers = f"dinov2-with-registers-{name}"
        rows.append(Size(registers, Dinov2EncoderConfig(), partial(_dinov2, *shape, True), millions))
        if name == "small":
            rows.append(
                Size("dinov2-small, cls", Dinov2EncoderConfig(tokens="cls"), partial(_dinov2, *shape, False), millions)
            )
        letter = name[0]
        rows.append(Size(f"dinov3-vit{letter}16", Dinov3EncoderConfig(), partial(_dinov3, *shape), millions))
    for name, (*shape, millions) in VJEPAS.items():
        make = partial(_vjepa2, *shape)
        rows.append(Size(f"vjepa2-{name}-fpc64-256, frame", VJepa2EncoderConfig(), make, millions))
        video = VJepa2EncoderConfig(mode="video", window=4)
        rows.append(Size(f"vjepa2-{name}-fpc64-256, video 4", video, make, millions))
    rows.append(Size("resnet-18, pooled", ResnetEncoderConfig(), _resnet18, 11))
    rows.append(Size("resnet-18, patch", ResnetEncoderConfig(tokens="patch"), _resnet18, 11))
    return sorted(rows, key=lambda row: row.name)


def wrap(config: EncoderConfig, network: nn.Module) -> Encoder:
    """The encoder that `build_encoder` would make of weights from a file."""
    match config:
        case Dinov2EncoderConfig():
            return vit.dinov2_of(network, config)
        case Dinov3EncoderConfig():
            return vit.dinov3_of(network, config)
        case VJepa2EncoderConfig():
            return vjepa2.FrozenVJepa2(network, config)
        case ResnetEncoderConfig():
            return FrozenResnet(network, config)
        case _:
            raise ValueError(f"{config.kind} has no published size")


def measure(size: Size) -> list[str]:
    """Cells of one row."""
    need = size.millions * 1e6 * BYTES / 2**30 + WORKING
    if need > MEMORY_GIB:
        return [size.name, f"skipped: needs about {need:.1f} GiB of {MEMORY_GIB:g}", "", "", ""]
    torch.manual_seed(0)
    began = time.process_time()
    network = size.network()
    encoder = wrap(size.config, network)
    made_s = time.process_time() - began
    frames = torch.randint(0, 256, (1, 1, 224, 224, 3), dtype=torch.uint8)
    tokens = encoder.encode(frames)
    expected = (1, 1, encoder.grid[0] * encoder.grid[1], encoder.dim)
    if tuple(tokens.shape) != expected or not bool(torch.isfinite(tokens).all()):
        raise RuntimeError(f"{size.name}: tokens {tuple(tokens.shape)} where {expected} finite ones were due")
    repeats = 5 if size.millions < 100 else 2
    began = time.process_time()
    for _ in range(repeats):
        encoder.encode(frames)
    image_ms = (time.process_time() - began) / repeats * 1000
    parameters = sum(p.numel() for p in network.parameters())
    grid = f"{encoder.grid[0]} x {encoder.grid[1]}"
    return [size.name, grid, str(encoder.dim), f"{parameters / 1e6:.1f} M", f"{image_ms:.0f} ms", f"{made_s:.1f} s"]


def main(wanted: list[str]) -> int:
    torchvision_shim.install()
    torch.set_num_threads(1)
    table = Table(title=f"encoders at published size, random weights, torch {torch.__version__}, one thread")
    for column in ("encoder", "patches", "dim", "parameters", "CPU an image", "CPU to make"):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    for size in sizes():
        if not wanted or any(part in size.name for part in wanted):
            table.add_row(*measure(size))
            gc.collect()
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
