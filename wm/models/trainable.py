"""What the training loop drives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from wm.losses.ranks import ALONE, Alone
from wm.types import Batch, LossTerms


class Trainable(nn.Module, ABC):
    """A model with losses of its own. Parameters that no gradient should reach have `requires_grad` off."""

    @abstractmethod
    def losses(self, batch: Batch, progress: float = 0.0, ranks: Alone = ALONE) -> LossTerms:
        """Every term, weighted as at `progress` in [0, 1] of training.

        Args:
            ranks: the workers that hold the rest of the global batch.
        """

    def after_step(self, progress: float, parts: Mapping[str, Tensor], ranks: Alone = ALONE) -> None:
        """What follows each optimiser step.

        Args:
            parts: `LossTerms.parts` of this worker's share of the batch.
            ranks: the workers that hold the rest of it.
        """

    @property
    @abstractmethod
    def hot_part(self) -> nn.Module:
        """Where training steps spend their time: what `train.compile` compiles. `losses` calls it as a module."""
