"""What the networks compute in, and what half precision needs to train."""

from __future__ import annotations

from typing import Any, Literal

import torch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for the forward passes; with fp16 a loss scale, so that small gradients do not vanish.

    Weights, gradients and the optimiser stay in float32. A step whose scaled gradients overflow is skipped and the scale halved.
    """

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self.dtype = _DTYPES[name]
        self._device = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """A context in which matrix products run in this precision."""
        return torch.autocast(self._device, self.dtype, enabled=self.dtype != torch.float32)

    def state(self) -> dict[str, Any]:
        """Plain numbers for the checkpoint; empty unless fp16."""
        return self.scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.scaler.load_state_dict(state)
