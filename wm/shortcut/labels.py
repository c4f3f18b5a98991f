"""Which level and step each frame is trained at.

Shape legend: B clips, T frames, R clips that are bootstrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from wm.config.forcing import ForcingConfig
from wm.config.schedule import value_at


@dataclass(frozen=True)
class Labels:
    """Labels of a batch's frames.

    Args:
        levels: 0 (noise) .. k_max (clean); u = level / k_max.
        steps: 1, 2, 4, ..., k_max; d = step / k_max.
        bootstrapped: frames whose target is the teacher's two half-steps; of the others it is the clean latent.
        bootstrap_rows: clips with such a frame: those that the teacher must see.
    """

    levels: Int64[Tensor, "B T"]
    steps: Int64[Tensor, "B T"]
    bootstrapped: Bool[Tensor, "B T"]
    bootstrap_rows: Int64[Tensor, "R"]

    def to(self, device: torch.device) -> Labels:
        """The same elsewhere."""
        return Labels(*(part.to(device) for part in vars(self).values()))


_STREAMS = {
    "labels": 0,
    "noise": 0x9E3779B9,
    "actions": 0x7F4A7C15,
}  # in the low 32 bits: a CPU generator reads no others


def row_generators(
    seeds: Sequence[int], stream: Literal["labels", "noise", "actions"], device: torch.device | str = "cpu"
) -> list[torch.Generator]:
    """A generator for each clip, from its own seed: draws do not depend on how a batch is cut over workers and micro-batches.

    Args:
        stream: what is drawn; one stream knows nothing of another.
    """
    return [torch.Generator(device).manual_seed(seed ^ _STREAMS[stream]) for seed in seeds]


def draw_labels(
    config: ForcingConfig, generators: Sequence[torch.Generator], num_frames: int, progress: float
) -> Labels:
    """Flow clips: every frame at d_min, level uniform below k_max, or clean. Bootstrap clips: each frame keeps d_min with
    probability 1/2 and else has a larger d, uniform over the powers of two; at least one has. Its level is uniform on its own
    grid 0, d, ..., 1 - d.

    Each clip takes 2 + 4 T numbers of its own generator and no other's.

    Args:
        progress: share of training done, in [0, 1].

    Source: Dreamer 4, arXiv 2509.24527, eq. 4 (which prints a grid of 1/d); there every frame draws its own d, here clips are
    of two kinds, as at inference: context at d_min beside a frame at a larger d.
    """
    rows = torch.stack([_uniforms(generator, num_frames) for generator in generators])
    kind, forced = rows[:, :1], rows[:, 1:2]
    keep, size, place, clean = rows[:, 2:].unflatten(1, (4, num_frames)).unbind(1)
    finest = finest_step(config, progress)

    is_bootstrap = kind < (config.bootstrap_fraction if progress >= config.bootstrap_warmup else 0.0)
    larger = keep >= 0.5
    chosen = torch.arange(num_frames, device=rows.device) == (forced * num_frames).long()
    bootstrapped = is_bootstrap & torch.where(larger.any(dim=1, keepdim=True), larger, chosen)

    num_larger = int(log2(config.k_max // finest))
    steps = torch.where(bootstrapped, finest * 2 ** (1 + (size * num_larger).long()), finest)
    levels = steps * (place * (config.k_max // steps)).long()
    levels = torch.where(~is_bootstrap & (clean < config.clean_probability), config.k_max, levels)
    return Labels(levels, steps, bootstrapped, bootstrapped.any(dim=1).nonzero().flatten())


def finest_step(config: ForcingConfig, progress: float) -> int:
    """The smallest step label in use: 1, or more while `config.grid` is below 1; never all of k_max, which nothing could teach."""
    wanted = max(2.0, config.k_max * min(1.0, value_at(config.grid, progress)))
    return config.k_max // 2 ** int(log2(wanted))


def _uniforms(generator: torch.Generator, num_frames: int) -> Float[Tensor, "N"]:
    return torch.rand(2 + 4 * num_frames, generator=generator, device=generator.device, dtype=torch.float64)
