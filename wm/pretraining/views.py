"""Two views of every frame of a clip: colours, a window, and which patches are hidden.

All frames of a clip share the draw of a view: what differs between them is then what moved.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from wm.config.pretrain import ViewsConfig

_GREY = (0.2989, 0.587, 0.114)
_MEAN, _STD = 0.5, 0.5  # as wm.encoders.preprocess: pixels in [-1, 1]


class View(NamedTuple):
    """What the network sees of B clips of T frames, P patches each.

    Args:
        pictures: in [-1, 1].
        plain: the same before colours were changed.
        hidden: which patches the student does not see.
    """

    pictures: Float[Tensor, "B T 3 S S"]
    plain: Float[Tensor, "B T 3 S S"]
    hidden: Bool[Tensor, "B T P"]


class Views:
    """Draws views with torch's own generator, whose state a checkpoint keeps.

    Args:
        size: S, side of a view in pixels.
        patch_size: side of a patch.
    """

    def __init__(self, config: ViewsConfig, size: int, patch_size: int) -> None:
        self._config = config
        self._size = size
        self._side = size // patch_size

    def pair(self, frames: UInt8[Tensor, "B T H W 3"]) -> tuple[View, View]:
        """Two views of each clip through one window: their patches show the same places."""
        pictures = self._windows(frames.permute(0, 1, 4, 2, 3).float().div_(255))
        return self._view(pictures), self._view(pictures)

    def _view(self, pictures: Tensor) -> View:
        clips, time = pictures.shape[:2]
        coloured, plain = ((of - _MEAN) / _STD for of in (self._coloured(pictures), pictures))
        return View(coloured, plain, self._hidden(clips, time).to(pictures.device))

    def _coloured(self, pictures: Tensor) -> Tensor:
        """Brightness, contrast, saturation, a mix of the channels and a tint, each the same for a clip."""
        config, clips = self._config, len(pictures)

        def factor(low: float, high: float) -> Tensor:
            drawn = torch.rand(clips) * (high - low) + low
            return drawn.to(pictures.device).view(clips, 1, 1, 1, 1)

        changed = pictures * factor(*config.brightness)
        mean = changed.mean(dim=(2, 3, 4), keepdim=True)
        changed = mean + (changed - mean) * factor(*config.contrast)
        weights = torch.tensor(_GREY, device=pictures.device).view(1, 1, 3, 1, 1)
        grey = (changed * weights).sum(dim=2, keepdim=True)
        changed = grey + (changed - grey) * factor(*config.saturation)
        mix = torch.eye(3) + config.channel_mix * torch.randn(clips, 3, 3)
        mix = mix / mix.sum(dim=2, keepdim=True)  # grey stays grey
        changed = torch.einsum("bck,btkhw->btchw", mix.to(pictures.device), changed)
        changed = changed + (config.tint * torch.randn(clips, 1, 3, 1, 1)).to(pictures.device)
        kept = (torch.rand(clips) >= config.colour_probability).to(pictures.device).view(clips, 1, 1, 1, 1)
        return torch.where(kept, pictures, changed.clamp(0, 1))

    def _windows(self, pictures: Tensor) -> Tensor:
        """A square window of each clip, bilinear, at S pixels."""
        clips, time, _, height, width = pictures.shape
        low, high = self._config.crop
        share = torch.rand(clips) * (high - low) + low
        spot = (torch.rand(clips, 2) * 2 - 1) * (1 - share)[:, None]
        affine = torch.zeros(clips, 2, 3)
        affine[:, 0, 0] = affine[:, 1, 1] = share
        affine[:, :, 2] = spot
        grid = functional.affine_grid(affine, [clips, 3, self._size, self._size], align_corners=False)
        grid = grid.to(pictures.device).repeat_interleave(time, dim=0)
        shrink = max(1.0, float(min(height, width)) * high / self._size)
        flat = pictures.flatten(0, 1)
        if shrink >= 2:  # bilinear sampling skips pixels beyond a factor of two
            flat = functional.interpolate(flat, scale_factor=1 / int(shrink), mode="area")
        found = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
        return found.unflatten(0, (clips, time))

    def _hidden(self, clips: int, time: int) -> Tensor:
        """A rectangle of patches of about `masked_share`, in a share of the frames."""
        config, side = self._config, self._side
        rows = torch.arange(side)
        low, high = config.masked_share
        share = torch.rand(clips * time) * (high - low) + low
        ratio = torch.exp((torch.rand(clips * time) * 2 - 1) * 0.5)
        tall = (share.sqrt() * ratio * side).round().clamp(1, side)
        wide = (share * side * side / tall).round().clamp(1, side)
        top = (torch.rand(clips * time) * (side - tall + 1)).floor()
        left = (torch.rand(clips * time) * (side - wide + 1)).floor()
        down = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        across = (rows >= left[:, None]) & (rows < (left + wide)[:, None])
        hidden = down[:, :, None] & across[:, None, :]
        shown = torch.rand(clips * time) >= config.masked_probability
        hidden[shown] = False
        return hidden.view(clips, time, side * side)
