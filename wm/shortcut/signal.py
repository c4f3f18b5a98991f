"""The signal levels of the dyadic grid, and how far a step between two of them goes."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wm.config.forcing import ForcingConfig, signal_levels

_REFERENCE_SIZE = 4096  # numbers of a frame's latent for which the unshifted grid was made


class SignalGrid(nn.Module):
    """tau = s(level / k_max): tau = 0 is noise, tau = 1 data.

    Args:
        latent_size: P C, numbers of a frame's latent: what `dimension_shift=auto` depends on.

    Raises ValueError where the signal does not rise at every step of the grid.

    Source: Dreamer 4, arXiv 2509.24527 (the grid). The warp is ours; its dimension shift is that of RAE, arXiv 2510.11690, there
    of noise levels.
    """

    tau: Tensor

    def __init__(self, config: ForcingConfig, latent_size: int) -> None:
        super().__init__()
        self.k_max = config.k_max
        tau = signal_levels(config, dimension_shift(config, latent_size))
        # Not part of a checkpoint: the config says it. In float64, because differences of neighbours are divided.
        self.register_buffer("tau", torch.tensor(tau, dtype=torch.float64), persistent=False)
        self.context_level = min(range(config.k_max), key=lambda level: abs(tau[level] - config.context_signal))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SignalGrid:
        """Moves with the model, but is never rounded with its weights."""
        exact = self.tau
        super()._apply(fn, recurse)
        self.tau = exact.to(self.tau.device)
        return self

    def forward(self, levels: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """tau of each level in 0 .. k_max, float64."""
        return self.tau[levels]

    def advance(self, start: Int[Tensor, "..."], end: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """(s(end) - s(start)) / (1 - s(start)): how far towards x^ a step goes; 0 where start = end < k_max. float64."""
        return (self.tau[end] - self.tau[start]) / (1 - self.tau[start])

    def shortcut_step(self, num_steps: int) -> int:
        """The step label of `num_steps` equal steps over the grid. Raises ValueError unless they divide k_max."""
        if num_steps < 1 or self.k_max % num_steps:
            raise ValueError(f"num_steps ({num_steps}) must divide k_max ({self.k_max})")
        return self.k_max // num_steps


def dimension_shift(config: ForcingConfig, latent_size: int) -> float:
    """alpha: as the config says, or max(1, sqrt(P C / 4096)) for `auto`."""
    if config.dimension_shift == "none":
        return 1.0
    return max(1.0, sqrt(latent_size / _REFERENCE_SIZE)) if config.dimension_shift == "auto" else config.dimension_shift
