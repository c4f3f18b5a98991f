"""Shortcut forcing: each frame is denoised from noise in K steps, under the action that led to it and the frames before it.

Shape legend: B batch, T frames, P patches, C token channels, A F action, K context frames, H imagined frames, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.forcing import ForcingConfig
from wm.config.shortcut import ShortcutConfig
from wm.losses.ranks import ALONE, Alone
from wm.shortcut.forcing import Denoiser, ShortcutForcing, corrupt
from wm.shortcut.labels import draw_labels, row_generators
from wm.shortcut.model import BackboneModel
from wm.shortcut.past import CachedPast, Past, RecomputedPast
from wm.shortcut.sampler import context_labels, sample
from wm.types import Batch

_PARTS = ("flow", "bootstrap", "flow_frames", "bootstrap_frames", "error")


class ShortcutModel(BackboneModel):
    """The world model of shortcut forcing.

    Args:
        config: with `forcing.kind=shortcut`.
        sizes: token_dim, tokens_per_frame, action_dim, action_adapters of `BackboneModel`.
    """

    def __init__(self, config: ShortcutConfig, **sizes: int | Mapping[str, int] | None) -> None:
        if not isinstance(config.forcing, ForcingConfig):
            raise ValueError("forcing.kind must be shortcut")
        super().__init__(config, k_max=config.forcing.k_max, **sizes)
