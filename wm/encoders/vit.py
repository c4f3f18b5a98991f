"""A frozen DINOv2 through transformers: pretrained from a hub id or folder, or small and seeded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm.config.encoder import Dinov2EncoderConfig, TinyEncoderConfig
from wm.config.errors import UserError
from wm.encoders import torchvision_shim
from wm.encoders.preprocess import preprocess

_FILTER_GAIN = 5.0  # of the tiny encoder's patch filters over transformers' initial scale
_CHUNK = 64  # images at once: bounds memory whatever the batch


class FrozenVit(nn.Module):
    """Patch tokens after the final norm (x_norm_patchtokens), CLS and registers dropped.

    Attributes:
        dim: D. grid: patches down and across. fingerprint: sha256 of weights and preprocessing.
    """

    def __init__(self, network: nn.Module, image_size: int, encode_size: int) -> None:
        super().__init__()
        config: Any = network.config
        if encode_size % config.patch_size:
            raise UserError(
                f"encoder.encode_size: {encode_size} is not a multiple of the patch size {config.patch_size}"
            )
        self.network = network
        self.image_size = image_size
        self.encode_size = encode_size
        self.dim: int = config.hidden_size
        self.grid = (encode_size // config.patch_size,) * 2
        self.num_prefix_tokens = 1 + int(getattr(config, "num_register_tokens", 0))
        self.requires_grad_(False)
        self.eval()
        self.fingerprint = self._fingerprint()

    def train(self, mode: bool = True) -> FrozenVit:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) -> float32 tokens (B, T, P, D)."""
        batch, time = frames.shape[:2]
        device = next(self.network.parameters()).device
        flat = frames.flatten(0, 1)
        tokens = torch.cat([self._tokens(chunk.to(device)) for chunk in flat.split(_CHUNK)])
        return tokens.unflatten(0, (batch, time))

    def _tokens(self, frames: Tensor) -> Tensor:
        images = preprocess(frames, self.image_size, self.encode_size)
        return self.network(pixel_values=images).last_hidden_state[:, self.num_prefix_tokens :]

    def _fingerprint(self) -> str:
        config: Any = self.network.config
        # The same weights compute something else with other heads: what tensors do not show belongs to it too.
        unseen = "/".join(
            str(getattr(config, key, None)) for key in ("num_attention_heads", "hidden_act", "layer_norm_eps")
        )
        digest = hashlib.sha256(f"{self.image_size}/{self.encode_size}/{unseen}".encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def tiny_encoder(config: TinyEncoderConfig) -> FrozenVit:
    """DINOv2's architecture at a hundred thousand seeded parameters.

    Patch filters are drawn with zero mean and five times transformers' own scale, so that a flat patch is told by its position
    alone and whatever stands out in a patch decides its token. (On Wall this raises the linear R2 of the mean token to the
    dot's position from .64, .46 to .87, .64, and the variance over frames ninefold.)
    """
    torchvision_shim.install()
    from transformers import Dinov2Config, Dinov2Model

    shape = Dinov2Config(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Dinov2Model(shape)
    filters: Any = network.embeddings.patch_embeddings.projection.weight
    with torch.no_grad():
        filters.sub_(filters.mean(dim=(1, 2, 3), keepdim=True)).mul_(_FILTER_GAIN)
    return FrozenVit(network, config.image_size, config.image_size)


def dinov2_encoder(config: Dinov2EncoderConfig) -> FrozenVit:
    """Pretrained DINOv2, in float32. Raises UserError with three ways out when weights are not found, or not whole."""
    torchvision_shim.install()
    from safetensors import SafetensorError
    from transformers import AutoModel

    local = Path(config.weights).expanduser()
    looked = f"the folder {local.resolve()}" if local.is_dir() else f"the hub's cache for '{config.weights}'"
    try:
        network, loaded = AutoModel.from_pretrained(
            str(local) if local.is_dir() else config.weights,
            local_files_only=local.is_dir() or _is_offline(),
            use_safetensors=True,
            dtype=torch.float32,  # else the file's own, and tokens of half precision
            output_loading_info=True,
        )
        if loaded["missing_keys"]:  # transformers fills them with random numbers and goes on
            missing = sorted(loaded["missing_keys"])
            raise ValueError(f"{len(missing)} of its weights are missing, as {missing[0]}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(
            f"encoder.weights: no DINOv2 found in {looked} ({reason}). Ways out: encoder.weights=FOLDER with config.json "
            f"and model.safetensors; download it where there is a network (HF_ENDPOINT sets a mirror) and copy the cache "
            f"(HF_HOME); or encoder.kind=tiny, which needs none"
        ) from error
    return FrozenVit(network, config.image_size, config.encode_size)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
