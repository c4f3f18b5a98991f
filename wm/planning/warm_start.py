"""The actions a search starts from."""

from __future__ import annotations

import torch
from torch import Tensor


def warm_start(start: Tensor | None, horizon: int, action_dim: int, device: torch.device) -> Tensor:
    """The first h actions of the initial guess, on `device`; (0, A F) when there is no warm start.

    Args:
        start: normalised actions (h, A F), or None.
        horizon: model steps planned; h may be at most this.

    Raises:
        ValueError: `start` is not (h <= horizon, action_dim).
    """
    if start is None:
        return torch.zeros(0, action_dim, device=device)
    if start.ndim != 2 or start.shape[0] > horizon or start.shape[1] != action_dim:
        raise ValueError(
            f"warm start must be (h <= horizon, action_dim) = (<= {horizon}, {action_dim}), got {tuple(start.shape)}"
        )
    return start.detach().to(device=device, dtype=torch.float32)
