"""Planning: the world, the planner, the objective and the MPC loop around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from wm.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from wm.config.errors import nearest
from wm.config.limits import LimitConfig
from wm.config.worlds import WallWorldConfig, WorldConfig

_Elites = TypeVar("_Elites", "CemConfig", "IcemConfig")


def _with_elites(config: _Elites) -> _Elites:
    if config.num_elites > config.num_samples:
        raise ValueError(f"num_elites ({config.num_elites}) must be at most num_samples ({config.num_samples})")
    if config.num_elites < 2:
        raise ValueError("num_elites must be at least 2: one elite has no standard deviation")
    return config


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
        return _with_elites(self)


class MppiConfig(Config):
    """Model-predictive path integral: samples weighted by exp(-cost / temperature)."""

    kind: Literal["mppi"] = "mppi"
    horizon: PositiveInt = 5
    num_samples: PositiveInt = 300
    num_iterations: PositiveInt = 10
    init_std: PositiveFloat = 1.0
    temperature: PositiveFloat = 0.1


class IcemConfig(Config):
    """CEM with coloured noise, a memory of elites and momentum.

    Args:
        noise_beta: colour of the noise along env steps: power ~ 1 / frequency^beta; 0 is white, 2 a random walk.
        decay: samples shrink by this factor each iteration, to no fewer than twice the elites.
        keep: share of an iteration's elites that are candidates again in the next, and of the last ones' at the next replanning.
        momentum: of mean and std.
    """

    kind: Literal["icem"] = "icem"
    horizon: PositiveInt = 5
    num_samples: PositiveInt = 300
    num_elites: PositiveInt = 30
    num_iterations: PositiveInt = 10
    init_std: PositiveFloat = 1.0
    noise_beta: NonNegativeFloat = 2.0
    decay: Annotated[float, Field(ge=1)] = 1.25
    keep: Fraction = 0.3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _elites_fit(self) -> Self:
        return _with_elites(self)


class GradientConfig(Config):
    """Gradient descent on the actions, through the world model. Defaults of DINO-WM.

    Args:
        optimizer: plain descent, or Adam (Kingma and Ba 2015), whose lr is a step in normalised units: try 0.05.
        start: where steps that no earlier plan knows begin: N(0, 1), or the action that does nothing.
    """

    kind: Literal["gradient"] = "gradient"
    optimizer: Literal["sgd", "adam"] = "sgd"
    start: Literal["randn", "zero"] = "randn"
    horizon: PositiveInt = 5
    num_iterations: PositiveInt = 1000
    lr: PositiveFloat = 1.0
    action_noise: NonNegativeFloat = 0.003


class RandomConfig(Config):
    """The control: actions from N(0, 1) in normalised units; the model is never asked."""

    kind: Literal["random"] = "random"
    horizon: PositiveInt = 5


PlannerConfig = Annotated[
    CemConfig | IcemConfig | MppiConfig | GradientConfig | RandomConfig, Field(discriminator="kind")
]


class ObjectiveConfig(Config):
    """What the planner minimises: squared latent distance to the goal.

    Args:
        space: `full` is every visual channel of every patch; `aligned` the patch mean of the aligned channels; `projected` the patch
            mean of all projected ones, what the latent dynamics loss compares. The proprio part is beside each.
        alpha: weight of the proprio part beside the visual part.
        frames: the last imagined frame, or all with weights base^t, normalised.
    """

    space: Literal["full", "aligned", "projected"] = "full"
    alpha: NonNegativeFloat = 0.0
    frames: Literal["last", "all"] = "last"
    base: PositiveFloat = 2.0


DRAWN = ("dataset", "random")
PROBLEM_FILES = (".npz", ".pkl")


def _one_or_several(steps: Any) -> Any:
    """One line for a wrong value, where a union would give one for each of its members."""
    is_list = isinstance(steps, list | tuple)
    several: tuple[Any, ...] = tuple(cast(Sequence[Any], steps)) if is_list else (steps,)
    if steps is not None and not (several and all(type(one) is int and one > 0 for one in several)):
        raise ValueError("expected a whole number above 0, or a list of them, one for each iteration of the planner")
    return several if is_list else steps


class PlanConfig(Config):
    """One planning evaluation.

    Args:
        execute_steps: model steps executed before replanning; None means the reference's choice: 1 for `gradient`, else the
            planner's whole horizon.
        max_iterations: how many times MPC plans.
        bounds: of the actions that are searched: `data` is the range of the training actions, `world` what its policies keep
            to, `none` no bounds, as the reference.
        limits: by name; every action passes through them in this order before it is executed, and each change is counted.
        problems: where starts and goals come from: `dataset` takes them from held-out episodes, `random` draws two states, and a file
            (.npz of ours, or the reference's plan_targets.pkl) holds them.
        together: problems planned in one batch, each in a world of its own. It decides the last digits of costs, nothing else.
        precision: of the matrix products while plans are imagined; weights, latents and costs stay in float32.
        sampling_steps: K, denoising steps of an imagined frame, for models that sample frames (shortcut), or a list with one for each
            iteration of the planner, of which the last counts for all later ones and for the plan's cost; None is the model's own.
        legacy_success_stop: stop a problem once the world says that its goal is met, as the reference does.
        seed: of the problems and of the planners' noise.
    """

    world: WorldConfig = WallWorldConfig()
    planner: PlannerConfig = CemConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    execute_steps: PositiveInt | None = None
    max_iterations: PositiveInt = 10
    bounds: Literal["none", "data", "world"] = "data"
    limits: dict[str, LimitConfig] = {}
    problems: str = "dataset"
    episodes: PositiveInt = 50
    together: PositiveInt = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    sampling_steps: Annotated[int | tuple[int, ...] | None, BeforeValidator(_one_or_several)] = None
    legacy_success_stop: bool = False
    seed: NonNegativeInt = 99

    @field_validator("problems")
    @classmethod
    def _from_somewhere(cls, problems: str) -> str:
        if problems not in DRAWN and not problems.endswith(PROBLEM_FILES):
            raise ValueError(
                f"expected {' or '.join(DRAWN)}, or a file ending in {' or '.join(PROBLEM_FILES)}, got '{problems}'."
                f"{nearest(problems, DRAWN)}"
            )
        return problems

    @property
    def problem_file(self) -> str | None:
        """The file that holds the problems, or None where they are drawn."""
        return None if self.problems in DRAWN else self.problems

    @model_validator(mode="after")
    def _executable(self) -> Self:
        if self.execute_steps is not None and self.execute_steps > self.planner.horizon:
            raise ValueError(
                f"execute_steps ({self.execute_steps}) must be at most planner.horizon ({self.planner.horizon})"
            )
        return self

    @property
    def steps_by_iteration(self) -> tuple[int, ...] | None:
        """`sampling_steps` as a list."""
        return (self.sampling_steps,) if isinstance(self.sampling_steps, int) else self.sampling_steps

    @property
    def steps_executed(self) -> int | None:
        """`execute_steps`, or the reference's choice: 1 for `gradient`, else None, the whole plan."""
        is_gradient = isinstance(self.planner, GradientConfig)
        return 1 if self.execute_steps is None and is_gradient else self.execute_steps
