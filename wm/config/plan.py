"""Planning: the world, the planner, the objective and the MPC loop around them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from wm.config.worlds import WallWorldConfig, WorldConfig


class CemConfig(Config):
    """Cross-entropy method. Defaults of DINO-WM (which uses 10 iterations for PointMaze and Wall)."""

    kind: Literal["cem"] = "cem"
    horizon: PositiveInt = 5
    num_samples: PositiveInt = 300
    num_elites: PositiveInt = 30
    num_iterations: PositiveInt = 30
    init_std: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _elites_fit(self) -> Self:
        if self.num_elites > self.num_samples:
            raise ValueError(f"num_elites ({self.num_elites}) must be at most num_samples ({self.num_samples})")
        if self.num_elites < 2:
            raise ValueError("num_elites must be at least 2: one elite has no standard deviation")
        return self


class MppiConfig(Config):
    """Model-predictive path integral: samples weighted by exp(-cost / temperature)."""

    kind: Literal["mppi"] = "mppi"
    horizon: PositiveInt = 5
    num_samples: PositiveInt = 300
    num_iterations: PositiveInt = 10
    init_std: PositiveFloat = 1.0
    temperature: PositiveFloat = 0.1


class GradientConfig(Config):
    """Gradient descent on the actions, through the world model. Defaults of DINO-WM."""

    kind: Literal["gradient"] = "gradient"
    horizon: PositiveInt = 5
    num_iterations: PositiveInt = 1000
    lr: PositiveFloat = 1.0
    action_noise: NonNegativeFloat = 0.003


class RandomConfig(Config):
    """The control: actions from N(0, 1) in normalised units; the model is never asked."""

    kind: Literal["random"] = "random"
    horizon: PositiveInt = 5


PlannerConfig = Annotated[CemConfig | MppiConfig | GradientConfig | RandomConfig, Field(discriminator="kind")]


class ObjectiveConfig(Config):
    """What the planner minimises: squared latent distance to the goal.

    Args:
        alpha: weight of the proprio part beside the visual part.
        frames: the last imagined frame, or all with weights base^t, normalised.
    """

    alpha: NonNegativeFloat = 0.0
    frames: Literal["last", "all"] = "last"
    base: PositiveFloat = 2.0


class PlanConfig(Config):
    """One planning evaluation.

    Args:
        execute_steps: model steps executed before replanning; None means the reference's choice: 1 for `gradient`, else the
            planner's whole horizon.
        max_iterations: how many times MPC plans.
        problems: where starts and goals come from: `dataset` takes them from held-out episodes, `random` draws two states.
        seed: of the problems and of the planners' noise.
    """

    world: WorldConfig = WallWorldConfig()
    planner: PlannerConfig = CemConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    execute_steps: PositiveInt | None = None
    max_iterations: PositiveInt = 10
    problems: Literal["dataset", "random"] = "dataset"
    episodes: PositiveInt = 50
    seed: NonNegativeInt = 99

    @model_validator(mode="after")
    def _executable(self) -> Self:
        if self.execute_steps is not None and self.execute_steps > self.planner.horizon:
            raise ValueError(
                f"execute_steps ({self.execute_steps}) must be at most planner.horizon ({self.planner.horizon})"
            )
        return self
