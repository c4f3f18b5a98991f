"""How tokens are kept: half precision, or a byte with a scale and an offset for each channel of an episode.

Channels of DINO features differ more from each other than a channel does from frame to frame: their means lie eight times
their spread apart. A scale for each token, whose largest channel then decides the step of all, therefore costs eight times
the error of a scale for each channel. Error as `relative_error` has it (2026-11-21):

    features                                     float16   a channel   a token   64 channels of a token
    DINOv2-L CLS, PointMaze, 60 episodes           0 (*)      0.52 %     9.0 %      6.0 %
    tiny encoder, Wall, 6 episodes                0.02 %      0.52 %    0.61 %     0.61 %

(*) They were recorded in float16. A linear probe of x, y on them gives the same R2 from either, to four digits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wm.config.data import TokenFormat
from wm.data.tensor_file import TensorFile

_LEVELS = 254  # codes -127 .. 127
_LARGEST = torch.finfo(torch.float16).max
_FRAMES = 8
_JUDGED = 32  # frames of an episode: all would take longer than writing them


def to_tensors(tokens: Tensor, kept_as: TokenFormat) -> dict[str, np.ndarray]:
    """float32 (T, P, D) -> what goes into the file.

    `int8`: x = code * scale + offset, with a scale and an offset (D,) for each channel over all frames and patches.

    Raises:
        ValueError: some are not finite, or too large for float16.
    """
    channels = tokens.flatten(0, 1)
    low, high = channels.amin(dim=0), channels.amax(dim=0)
    if not bool(((low >= -_LARGEST) & (high <= _LARGEST)).all()):  # false for NaN too
        raise ValueError("not finite, or too large for float16")
    if kept_as == "float16":
        return {"tokens": tokens.to(torch.float16).numpy()}
    scale, offset = (high - low) / _LEVELS, (high + low) / 2
    steps = torch.where(scale > 0, 1 / scale, 0)  # a channel that never changes is its offset
    codes = torch.empty(tokens.shape, dtype=torch.int8)
    for some, into in zip(tokens.split(_FRAMES), codes.split(_FRAMES), strict=True):  # what fits the processor's cache
        into.copy_((some - offset).mul_(steps).round_())
    return {"tokens": codes.numpy(), "scale": scale.numpy(), "offset": offset.numpy()}


def from_tensors(codes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The inverse of `int8`: codes (n, P, D) -> float16. (torch takes a tenth of numpy's time.)"""
    values = torch.from_numpy(codes).float().mul_(torch.from_numpy(scale)).add_(torch.from_numpy(offset))
    return values.half().numpy()


class StoredEpisode:
    """The tokens of an episode on disk. Raises as TensorFile."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self.metadata = file.metadata
        self._int8 = file.metadata.get("format") == "int8"
        self._scale, self._offset = (file.whole(name) if self._int8 else np.empty(0) for name in ("scale", "offset"))
        self.num_frames, self.num_patches, self.dim = file.shape("tokens")

    def read(self, indices: np.ndarray) -> np.ndarray:
        """(n, P, D) float16 of some frames. Raises as TensorFile.rows."""
        rows = self._file.rows("tokens", indices)
        return from_tensors(rows, self._scale, self._offset) if self._int8 else rows


def relative_error(tokens: Tensor, kept: dict[str, np.ndarray]) -> float:
    """What is lost: the root mean square of restored - tokens over that of tokens - their mean token.

    Of up to 32 frames of the episode, evenly spread. The mean token is left out below: it holds most of the square of DINO
    features, and none of what tells frames apart.

    Args:
        tokens: float32 (T, P, D), as encoded.
        kept: `to_tensors` of them.
    """
    chosen = torch.linspace(0, len(tokens) - 1, min(_JUDGED, len(tokens))).long()
    judged, rows = tokens[chosen], kept["tokens"][chosen.numpy()]
    restored = from_tensors(rows, kept["scale"], kept["offset"]) if "scale" in kept else rows
    lost = (torch.from_numpy(restored).float() - judged).square().mean()
    spread = (judged - judged.mean(dim=(0, 1))).square().mean()
    return float((lost / spread).sqrt()) if spread > 0 else float(lost.sqrt())
