"""Frozen image ViTs through transformers: DINOv2 and DINOv3, pretrained or small and seeded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wm.config.encoder import Dinov2EncoderConfig, Dinov3EncoderConfig, TinyEncoderConfig
from wm.encoders import torchvision_shim
from wm.encoders.frozen import FrozenEncoder, check_multiple
from wm.encoders.preprocess import preprocess, preprocess_imagenet
from wm.encoders.pretrained import DINOV2, DINOV3, load_pretrained
from wm.encoders.trained import read_trained

_FILTER_GAIN = 5.0  # of the tiny encoder's patch filters over transformers' initial scale
# The same weights compute something else with other heads: what tensors do not show belongs to the fingerprint too.
_UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps")


class FrozenVit(FrozenEncoder):
    """Tokens after the final norm: those of the patches (x_norm_patchtokens), CLS and registers dropped, or CLS alone.

    Args:
        prepare: uint8 (N, H, W, 3) -> the network's input (N, 3, S, S).
        encode_size: S, side of the network's input.
        facts: names preprocessing and shape in the fingerprint.
        at_size: the same network behind another size.
    """

    def __init__(
        self,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        encode_size: int,
        tokens: Literal["patch", "cls"],
        facts: str,
        at_size: Callable[[int], FrozenVit],
    ) -> None:
        config: Any = network.config
        self.num_prefix_tokens = 1 + int(getattr(config, "num_register_tokens", 0))
        grid = (encode_size // config.patch_size,) * 2 if tokens == "patch" else (1, 1)
        super().__init__(network, config.hidden_size, grid, facts if tokens == "patch" else f"{facts}/{tokens}")
        self.kept = slice(self.num_prefix_tokens, None) if tokens == "patch" else slice(1)
        self.prepare = prepare
        self.at_size = at_size

    def frame_tokens(self, frames: Tensor) -> Tensor:
        return self.network(pixel_values=self.prepare(frames)).last_hidden_state[:, self.kept]


def _dino_wm_vit(
    network: nn.Module, image_size: int, encode_size: int, tokens: Literal["patch", "cls"] = "patch"
) -> FrozenVit:
    """A ViT behind DINO-WM's own transform."""
    check_multiple("encode_size", encode_size, _config(network).patch_size, "patch size")
    facts = f"{image_size}/{encode_size}/{_values(network, *_UNSEEN)}"
    prepare = partial(preprocess, image_size=image_size, encode_size=encode_size)
    resized = partial(_dino_wm_vit, network, image_size, tokens=tokens)
    return FrozenVit(network, prepare, encode_size, tokens, facts, resized)


def tiny_encoder(config: TinyEncoderConfig) -> FrozenVit:
    """The small DINOv2 that a config names: random, shipped or in a folder. Raises UserError when its weights cannot be used."""
    if config.is_random:
        return _random_encoder(config)
    network, image_size = read_trained(config.pretrained)
    check_multiple("image_size", config.image_size or image_size, _config(network).patch_size, "patch size")
    return tiny_encoder_of(network, config.image_size or image_size)


def _random_encoder(config: TinyEncoderConfig) -> FrozenVit:
    """Seeded weights.

    Patch filters are drawn with zero mean and five times transformers' own scale, so that a flat patch is told by its position
    alone and whatever stands out in a patch decides its token. (On Wall this raises the linear R2 of the mean token to the
    dot's position from .64, .46 to .87, .64, and the variance over frames ninefold.)
    """
    torchvision_shim.install()
    from transformers import Dinov2Config, Dinov2Model

    shape = config.shape
    settings = Dinov2Config(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        network = Dinov2Model(settings)
    filters: Any = network.embeddings.patch_embeddings.projection.weight
    with torch.no_grad():
        filters.sub_(filters.mean(dim=(1, 2, 3), keepdim=True)).mul_(_FILTER_GAIN)
    return tiny_encoder_of(network, shape.image_size)


def tiny_encoder_of(network: nn.Module, image_size: int) -> FrozenVit:
    """A network of this shape behind the tiny encoder's transform: frames are resized and cropped to `image_size`."""
    return _dino_wm_vit(network, image_size, image_size)


def dinov2_encoder(config: Dinov2EncoderConfig) -> FrozenVit:
    """Pretrained DINOv2, in float32. Raises UserError with three ways out when weights are not found, or not whole."""
    return dinov2_of(load_pretrained(config.weights, DINOV2), config)


def dinov2_of(network: nn.Module, config: Dinov2EncoderConfig) -> FrozenVit:
    """A Dinov2Model or Dinov2WithRegistersModel behind DINO-WM's transform."""
    return _dino_wm_vit(network, config.image_size, config.encode_size, config.tokens)


def dinov3_encoder(config: Dinov3EncoderConfig) -> FrozenVit:
    """Pretrained DINOv3 ViT, in float32. Raises UserError as `dinov2_encoder`."""
    return dinov3_of(load_pretrained(config.weights, DINOV3), config)


def dinov3_of(network: nn.Module, config: Dinov3EncoderConfig) -> FrozenVit:
    """A DINOv3ViTModel on ImageNet-normalised images."""
    size = config.image_size
    check_multiple("image_size", size, _config(network).patch_size, "patch size")
    facts = f"imagenet {size}/{_values(network, *_UNSEEN, 'rope_theta')}"
    prepare = partial(preprocess_imagenet, image_size=size)
    return FrozenVit(network, prepare, size, config.tokens, facts, partial(_dinov3_at, network, config))


def _dinov3_at(network: nn.Module, config: Dinov3EncoderConfig, size: int) -> FrozenVit:
    return dinov3_of(network, config.model_copy(update={"image_size": size}))


def _config(network: nn.Module) -> Any:
    return network.config


def _values(network: nn.Module, *names: str) -> str:
    return "/".join(str(getattr(network.config, name, None)) for name in names)
