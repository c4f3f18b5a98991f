"""What `wm diagnose` spends on finding out where planning fails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wm.config.base import Config, PositiveInt
from wm.config.plan import CemConfig


class DiagnosisConfig(Config):
    """Its own small search: the simulator is slow, and rows that are compared must search alike.

    Args:
        simulator_problems: of the saved problems, how many (the first) the slow rows take.
        simulator_samples, simulator_iterations: of the CEM that searches in the simulator and, beside it, in the model.
        candidates: random plans whose cost is compared with that of the recorded actions.
        shifts: of the world, by name; None: all that it has.
    """

    simulator_problems: PositiveInt = 10
    simulator_samples: Annotated[int, Field(ge=2)] = 64
    simulator_iterations: PositiveInt = 5
    candidates: Annotated[int, Field(ge=2)] = 64
    shifts: tuple[str, ...] | None = None

    def search(self, horizon: int) -> CemConfig:
        """That CEM; an eighth of its samples are elites.

        Args:
            horizon: model steps planned.
        """
        return CemConfig(
            horizon=horizon,
            num_samples=self.simulator_samples,
            num_elites=max(2, self.simulator_samples // 8),
            num_iterations=self.simulator_iterations,
        )
