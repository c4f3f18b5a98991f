"""The actions a search starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.types import WarmStart


def known_actions(
    start: WarmStart | None, problems: int, horizon: int, action_dim: int, device: torch.device
) -> Tensor:
    """The first h actions of the guess, on `device`; (B, 0, A F) when there is none.

    Args:
        horizon: model steps planned; h may be at most this.

    Raises:
        ValueError: the guess is not (B, h <= horizon, action_dim).
    """
    if start is None:
        return torch.zeros(problems, 0, action_dim, device=device)
    guess = start.actions
    if guess.ndim != 3 or len(guess) != problems or guess.shape[1] > horizon or guess.shape[2] != action_dim:
        raise ValueError(
            f"warm start must be (B, h <= horizon, action_dim) = ({problems}, <= {horizon}, {action_dim}), got {tuple(guess.shape)}"
        )
    return guess.detach().to(device=device, dtype=torch.float32)
