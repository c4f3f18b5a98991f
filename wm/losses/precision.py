"""Losses are computed in float32 whatever the networks run in: a mean of squares in bfloat16 keeps two digits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """The same function with autocast off and its half-precision tensors cast to float32."""

    @wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), "cpu")
        is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if is_on else nullcontext():
            return loss(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def _wide(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value
