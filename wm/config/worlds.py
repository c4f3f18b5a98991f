"""The simulated worlds: what may be asked of each. Facts of the originals: WORLDS.md; their numbers: tests/golden/worlds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from wm.config.base import Config, NonNegativeInt, PositiveInt


class _World(Config):
    """Args:
    frame_size: side of the pictures.
    shift: a named change of what is seen or of the body, for robustness tables; each world lists its own.
    """

    frame_size: PositiveInt = 224


class WallWorldConfig(_World):
    """The point, the wall and the door of DINO-WM.

    `layout: fixed` is wall 32, door 30; `random` draws wall in 20..44 and door in 10..54 for every episode. Shifts change the
    picture alone.
    """

    kind: Literal["wall"] = "wall"
    layout: Literal["fixed", "random"] = "fixed"
    shift: Literal["none", "light", "colours", "background", "agent_size"] = "none"


class LinearWorldConfig(_World):
    """s' = A s + B a with a seeded, stable A: the world whose best plan is known."""

    kind: Literal["linear"] = "linear"
    frame_size: PositiveInt = 84
    seed: NonNegativeInt = 0


PointMazeShift = Literal["none", "light", "colours", "background", "camera", "agent_size"]


class PointMazeWorldConfig(_World):
    """A ball in the mazes of D4RL. `layout: random` draws a connected maze of 4 x 4 cells for every episode."""

    kind: Literal["point_maze"] = "point_maze"
    layout: Literal["umaze", "medium", "random"] = "umaze"
    shift: PointMazeShift = "none"


PushTShape = Literal["T", "L", "Z", "square", "I", "small_tee", "plus"]


def _listed(value: object) -> object:
    if isinstance(value, list):  # JSON and YAML know no tuples
        return tuple(cast(list[object], value))
    return (value,) if isinstance(value, str) else value


def _not_empty(shapes: tuple[PushTShape, ...]) -> tuple[PushTShape, ...]:
    if not shapes:
        raise ValueError("expected at least one shape")
    return shapes


class PushTWorldConfig(_World):
    """The Push-T of DINO-WM: a round pusher, a block, and a green place that is only drawn.

    Args:
        shape: the block's, or a list: every episode's layout then draws one of it. A bare name is a list of one.
        with_target: whether the green place is drawn.
    """

    kind: Literal["pusht"] = "pusht"
    shape: Annotated[tuple[PushTShape, ...], BeforeValidator(_listed), AfterValidator(_not_empty)] = ("T",)
    with_target: bool = True
    shift: Literal["none", "light", "colours", "background", "agent_size"] = "none"


class RopeWorldConfig(_World):
    """A rope on a table and a stick that pushes it: DINO-WM's, in MuJoCo.

    Args:
        start_pushes: random pushes between the scene and a problem's start.
    """

    kind: Literal["rope"] = "rope"
    shift: Literal["none", "light", "colours", "background", "camera", "agent_size"] = "none"
    start_pushes: PositiveInt = 3


class GranularWorldConfig(_World):
    """Grains on a table and a board that pushes them: DINO-WM's, in MuJoCo.

    Args:
        num_grains: the original's 97, or fewer on a smaller patch, which is faster.
        start_pushes: random pushes between the scene and a problem's start.
    """

    kind: Literal["granular"] = "granular"
    shift: Literal["none", "light", "colours", "background", "camera", "agent_size"] = "none"
    num_grains: Annotated[int, Field(ge=2, le=400)] = 97
    start_pushes: PositiveInt = 2


class _RobosuiteWorld(_World):
    """A robosuite manipulation task with a Panda; one class of these for each task.

    Args:
        camera: robosuite's name of the view.
        control: `osc_pose` takes 7-D delta poses, as robosuite's demonstrations; `joint` takes 9-D joint and finger targets,
            as the Franka cube-stack log.
        shift: there is no agent_size, since the arm is one.
    """

    camera: Literal["agentview", "frontview", "birdview", "robot0_eye_in_hand"] = "agentview"
    control: Literal["osc_pose", "joint"] = "osc_pose"
    shift: Literal["none", "light", "colours", "background", "camera"] = "none"


class LiftWorldConfig(_RobosuiteWorld):
    """Pick up the cube."""

    kind: Literal["lift"] = "lift"


class CanWorldConfig(_RobosuiteWorld):
    """Move the can from one bin to its quarter of the other."""

    kind: Literal["can"] = "can"


class SquareWorldConfig(_RobosuiteWorld):
    """Put the square nut on the square peg."""

    kind: Literal["square"] = "square"


class StackWorldConfig(_RobosuiteWorld):
    """Put the small cube on the large one."""

    kind: Literal["stack"] = "stack"


RobosuiteWorldConfig = LiftWorldConfig | CanWorldConfig | SquareWorldConfig | StackWorldConfig


class CustomWorldConfig(_World):
    """A world from outside this repository that obeys `wm.contracts.World`.

    Args:
        target: `package.module:Name`; Name is called with `frame_size` and with `config` as keyword arguments.
        config: plain values.
        expert: `package.module:Name` of a class that obeys `wm.contracts.Policy`, called without arguments; None where the world
            has no script.
    """

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(min_length=1)]
    config: dict[str, Any] = {}
    expert: str | None = None


WorldConfig = Annotated[
    WallWorldConfig
    | LinearWorldConfig
    | PointMazeWorldConfig
    | PushTWorldConfig
    | RopeWorldConfig
    | GranularWorldConfig
    | LiftWorldConfig
    | CanWorldConfig
    | SquareWorldConfig
    | StackWorldConfig
    | CustomWorldConfig,
    Field(discriminator="kind"),
]
