"""ResNet-18 as a frozen baseline."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wm.config.encoder import ResnetEncoderConfig
from wm.encoders.frozen import FrozenEncoder, check_multiple
from wm.encoders.preprocess import preprocess_imagenet
from wm.encoders.pretrained import RESNET, load_pretrained

STRIDE = 32  # pixels between places of the last feature map
_UNSEEN = ("layer_type", "hidden_act", "downsample_in_first_stage", "downsample_in_bottleneck")


class FrozenResnet(FrozenEncoder):
    """The last feature map: its places as tokens (`patch`), or their mean as one token (`pooled`)."""

    def __init__(self, network: nn.Module, config: ResnetEncoderConfig) -> None:
        shape: Any = network.config
        check_multiple("image_size", config.image_size, STRIDE, "stride")
        self.pooled = config.tokens == "pooled"
        self.config = config
        side = 1 if self.pooled else config.image_size // STRIDE
        facts = "/".join(str(getattr(shape, name)) for name in _UNSEEN)
        super().__init__(
            network,
            shape.hidden_sizes[-1],
            (side, side),
            f"resnet {config.resize_size}/{config.image_size}/{config.tokens}/{facts}",
        )

    def frame_tokens(self, frames: Tensor) -> Tensor:
        outputs = self.network(pixel_values=self._prepare(frames))
        features = outputs.pooler_output if self.pooled else outputs.last_hidden_state
        return features.flatten(2).transpose(1, 2)

    def at_size(self, size: int) -> FrozenResnet:
        """The same network on pictures of another size."""
        return FrozenResnet(self.network, self.config.at_size(size))

    def _prepare(self, frames: Tensor) -> Tensor:
        return preprocess_imagenet(frames, self.config.image_size, self.config.resize_size)


def resnet18_encoder(config: ResnetEncoderConfig) -> FrozenResnet:
    """Pretrained ResNet-18, in float32. Raises UserError as `dinov2_encoder`."""
    return FrozenResnet(load_pretrained(config.weights, RESNET), config)
