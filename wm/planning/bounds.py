"""The range in which actions are searched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ActionBounds:
    """Lowest and highest normalised model action, each (A F,). Raises ValueError when one is not below the other."""

    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        if not (self.low < self.high).all():
            raise ValueError(f"bounds: {self.low.tolist()} must lie below {self.high.tolist()}")

    def clamp(self, actions: Tensor) -> Tensor:
        """(..., A F) moved to the nearest action within; dtype and device are the actions'."""
        return actions.clamp(self.low.to(actions), self.high.to(actions))

    def truncated(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Samples of N(mean, std^2) given that they lie within, from as many standard-normal numbers.

        a = mean + std Phi^-1(Phi(l) + Phi(noise) (Phi(h) - Phi(l))), l and h the bounds in units of std from the mean. A mean outside
        counts as the nearest one within. One number of noise an entry, as without bounds: the stream does not depend on them.
        """
        mean = self.clamp(mean)
        scale = std.double().clamp_min(torch.finfo(torch.float32).tiny)
        low, high = (torch.special.ndtr((end.to(mean.device).double() - mean) / scale) for end in (self.low, self.high))
        share = torch.special.ndtr(noise.double())
        drawn = torch.special.ndtri(low + share * (high - low))
        return self.clamp((mean + scale * drawn).float())


def within(bounds: ActionBounds | None, actions: Tensor) -> Tensor:
    """The actions, clamped where there are bounds."""
    return actions if bounds is None else bounds.clamp(actions)
