"""An encoder from outside, asked once whether it keeps the contract before a run is built on it."""

from __future__ import annotations

import torch

from wm.config.encoder import CustomEncoderConfig
from wm.config.errors import UserError
from wm.config.target import call_target
from wm.contracts import Encoder

_MEMBERS = ("dim", "grid", "fingerprint", "encode")
_PROBE = (1, 2, 64, 64, 3)  # one clip of two black frames


def custom_encoder(config: CustomEncoderConfig) -> Encoder:
    """`target(**config)`. Raises UserError when it cannot be made, or does not do what `wm.contracts.Encoder` says."""
    encoder = call_target(config.target, "encoder.target", config.config)
    missing = [name for name in _MEMBERS if not hasattr(encoder, name)]
    if missing:
        raise UserError(
            f"encoder.target: {config.target} is no encoder: it has no {', '.join(missing)} (wm.contracts.Encoder)"
        )
    fault = _fault(encoder)
    if fault is not None:
        raise UserError(f"encoder.target: {config.target} breaks the contract of wm.contracts.Encoder: {fault}")
    return encoder


def _fault(encoder: Encoder) -> str | None:
    if not (isinstance(encoder.fingerprint, str) and encoder.fingerprint):
        return f"fingerprint must be a text that names its weights and preprocessing, got {encoder.fingerprint!r}"
    if not _is_grid(encoder.grid):
        return f"grid must be (patches down, patches across), got {encoder.grid!r}"
    expected = (*_PROBE[:2], encoder.grid[0] * encoder.grid[1], encoder.dim)
    try:
        tokens = encoder.encode(torch.zeros(_PROBE, dtype=torch.uint8))
    except Exception as error:  # code from outside may fail in any way
        return f"encode of uint8 frames {_PROBE} failed: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
    if not isinstance(tokens, torch.Tensor) or tuple(tokens.shape) != expected:
        found = tuple(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        return f"encode of uint8 frames {_PROBE} must give (B, T, P, D) = {expected}, got {found}"
    if tokens.dtype != torch.float32:
        return f"tokens must be float32, got {tokens.dtype}"
    if tokens.requires_grad:
        return "tokens must carry no gradient: an encoder is frozen (torch.no_grad)"
    return None


def _is_grid(grid: object) -> bool:
    return (
        isinstance(grid, tuple | list) and len(grid) == 2 and all(isinstance(side, int) and side > 0 for side in grid)
    )
