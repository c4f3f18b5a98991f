"""The noise that rollouts start from: a frame's own, whatever is computed beside it.

Shape legend: T frames, P patches, C token channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CONTEXT, IMAGINED = 0, 1  # streams: what context is corrupted with, and what a new frame is denoised from


def frame_noise(seed: int, stream: int, frames: Iterable[int], shape: tuple[int, int]) -> Float[Tensor, "1 T P C"]:
    """Standard normal numbers of each frame, in float32 on the CPU: the same for every clip and sample.

    Args:
        frames: positions from the start of the rollout on.
        shape: (P, C).
    """
    keys = (np.random.SeedSequence([seed, stream, frame]).generate_state(1)[0] for frame in frames)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(int(key))) for key in keys]
    return torch.stack(drawn)[None]
