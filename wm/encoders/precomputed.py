"""Stands for the encoder that made the features of a data set."""

from __future__ import annotations

import hashlib

from torch import Tensor

from wm.config.encoder import PrecomputedEncoderConfig
from wm.config.errors import UserError


class PrecomputedEncoder:
    """Shape and name of tokens that the source itself holds; there is nothing here that could encode a frame."""

    def __init__(self, config: PrecomputedEncoderConfig) -> None:
        self.dim: int = config.dim
        self.grid: tuple[int, int] = config.grid
        # In place of weights, the words that say whose features these are; the numbers are in the data's fingerprint.
        facts = f"precomputed/{config.provenance}/{config.grid}/{config.dim}"
        self.fingerprint = hashlib.sha256(facts.encode()).hexdigest()[:16]

    def encode(self, frames: Tensor) -> Tensor:
        """Raises UserError: there is no network."""
        raise UserError(
            "encoder.kind=precomputed: tokens are read from files and no new frame can be encoded; to plan, train with the "
            "encoder itself (encoder.kind=dinov2, ...)"
        )
