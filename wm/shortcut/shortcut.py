"""Shortcut forcing: a frame is denoised from noise in K steps, under its action and what came before.

Shape legend: B batch, T frames, P patches, C token channels, A F action, K context frames, H imagined frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.forcing import ForcingConfig
from wm.config.shortcut import ShortcutConfig
from wm.losses.ranks import ALONE, Alone
from wm.shortcut.backbone import BlockCausalTransformer
from wm.shortcut.cache import RingCache
