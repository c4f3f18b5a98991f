"""Torch's random state: the only one that training draws from (clips, problems and layouts have generators of their own)."""

from __future__ import annotations

import torch
from torch import Tensor


def rng_state() -> dict[str, Tensor]:
    """Of the CPU and of the current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Tensor]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
