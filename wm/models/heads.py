"""Small learned maps beside the predictor."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TransitionHead(nn.Module):
    """g(o_{t-1}, a_{t-1}) -> o_t on the aligned channels: Linear, GELU, Linear."""

    def __init__(self, aligned_dim: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(aligned_dim + action_dim, hidden), nn.GELU(), nn.Linear(hidden, aligned_dim))

    def forward(self, aligned: Float[Tensor, "B T K"], actions: Float[Tensor, "B T E"]) -> Float[Tensor, "B T K"]:
        return self.net(torch.cat([aligned, actions], dim=-1))
