"""V-JEPA 2 as a causal frame encoder: the tokens of a frame come from a window of video that ends at it.

Shape legend: N frames of all clips, W frames of a window, P patches of a frame, D channels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from wm.config.encoder import VJepa2EncoderConfig
from wm.encoders.frozen import CHUNK, FrozenEncoder, check_multiple, exact_float32
from wm.encoders.preprocess import preprocess_imagenet
from wm.encoders.pretrained import VJEPA2, load_pretrained

_UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps", "mlp_ratio")


class FrozenVJepa2(FrozenEncoder):
    """The tokens of a window's last tubelet.

    The network attends in both time directions, so no window may hold a later frame (SCIENCE section 4). With `mode: frame` a
    window is one frame, repeated to fill a tubelet; with `mode: video` it is frames t - W + 1 .. t of the same clip, where
    frames before the clip's first are that first one.

    Args:
        network: the encoder part of transformers' VJEPA2Model.

    Source: V-JEPA 2 (arXiv 2506.09985), 3.1 for `frame`: V-JEPA 2-AC encodes each frame by itself, repeated.
    """

    def __init__(self, network: torch.nn.Module, config: VJepa2EncoderConfig) -> None:
        shape: Any = network.config
        check_multiple("image_size", config.image_size, shape.patch_size, "patch size")
        is_video = config.mode == "video"
        if is_video:
            check_multiple("window", config.window, shape.tubelet_size, "tubelet size")
        self.window = config.window if is_video else 1
        facts = "/".join(str(getattr(shape, name)) for name in _UNSEEN)
        grid = (config.image_size // shape.patch_size,) * 2
        super().__init__(
            network,
            shape.hidden_size,
            grid,
            f"vjepa2 {config.resize_size}/{config.image_size}/window {self.window}/{facts}",
        )
        self.config = config
        self.tubelet_size: int = shape.tubelet_size

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) -> float32 tokens (B, T, P, D)."""
        batch, time = frames.shape[:2]
        flat = frames.flatten(0, 1)
        windows = self._windows(batch, time)
        size = max(CHUNK * self.tubelet_size // windows.shape[1], 1) if self.window > 1 else CHUNK
        with exact_float32(self.device):
            tokens = torch.cat([self._window_tokens(flat, chunk) for chunk in windows.split(size)])
        return tokens.unflatten(0, (batch, time))

    def _windows(self, batch: int, time: int) -> Tensor:
        """(B T, W) which of the B T frames each window holds; none is of another clip, none is later than its frame."""
        steps = torch.arange(time)[:, None] + torch.arange(1 - self.window, 1)
        first = time * torch.arange(batch)[:, None, None]
        return (steps.clamp(min=0) + first).flatten(0, 1)

    def _window_tokens(self, flat: Tensor, windows: Tensor) -> Tensor:
        """Tokens (n, P, D) of n windows, each frame of which is prepared once."""
        needed, places = torch.unique(windows, return_inverse=True)
        images = preprocess_imagenet(flat[needed].to(self.device), self.config.image_size, self.config.resize_size)
        video = images[places]
        if self.window == 1:
            video = video.expand(-1, self.tubelet_size, -1, -1, -1)
        tokens = self.network(pixel_values_videos=video).last_hidden_state
        return tokens[:, -self.grid[0] * self.grid[1] :]

    def at_size(self, size: int) -> FrozenVJepa2:
        """The same weights on pictures of another size."""
        config = self.config.at_size(size)
        return FrozenVJepa2(_counting(self.network, config.image_size), config)


def _counting(network: torch.nn.Module, image_size: int) -> torch.nn.Module:
    """The network on the same weights with its rotary positions counted on the grid of another size."""
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    other = copy.deepcopy(network, weights)
    config: Any = other.config
    config.crop_size = image_size
    for module in other.modules():
        if hasattr(module, "grid_size"):
            module.grid_size = image_size // config.patch_size
    return other


def vjepa2_encoder(config: VJepa2EncoderConfig) -> FrozenVJepa2:
    """Pretrained V-JEPA 2, in float32, its predictor left out. Raises UserError as `dinov2_encoder`."""
    # Its rotary positions are counted on a grid of crop_size, whatever the size of the images.
    network = load_pretrained(config.weights, VJEPA2, crop_size=config.image_size)
    return FrozenVJepa2(network.encoder, config)
