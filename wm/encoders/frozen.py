"""What every frozen network shares: evaluation mode, no gradient, float32, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wm.config.errors import UserError

CHUNK = 64  # images at once: bounds memory whatever the batch


class FrozenEncoder(nn.Module):
    """A frozen network over single frames.

    Args:
        network: gives the tokens; its weights are part of the fingerprint.
        facts: what else decides the tokens (preprocessing, heads, ...), as text for the fingerprint.

    Attributes:
        dim: D. grid: patches down and across. fingerprint: sha256 of weights and facts.
    """

    def __init__(self, network: nn.Module, dim: int, grid: tuple[int, int], facts: str) -> None:
        super().__init__()
        self.network = network
        self.dim = dim
        self.grid = grid
        self.requires_grad_(False)
        self.eval()
        self.fingerprint = _fingerprint(network, facts)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) -> float32 tokens (B, T, P, D)."""
        batch, time = frames.shape[:2]
        with exact_float32(self.device):
            tokens = torch.cat(
                [self.frame_tokens(chunk.to(self.device)) for chunk in frames.flatten(0, 1).split(CHUNK)]
            )
        return tokens.unflatten(0, (batch, time))

    def frame_tokens(self, frames: Tensor) -> Tensor:
        """uint8 (n, H, W, 3) -> (n, P, D)."""
        raise NotImplementedError


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: tokens depend neither on how the predictor is trained nor on the device.

    torch lets convolutions use TF32 on a GPU unless told otherwise: ten bits of the patch embedding's mantissa.
    """
    cudnn: Any = torch.backends.cudnn
    backends: list[Any] = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def check_multiple(field: str, size: int, of: int, what: str) -> None:
    """Raises UserError when `size` is not a multiple of `of`."""
    if size % of:
        raise UserError(f"encoder.{field}: {size} is not a multiple of the {what} {of}")


def _fingerprint(network: nn.Module, facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
