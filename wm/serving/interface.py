"""What a served model takes and gives, in the units of its data."""

from __future__ import annotations

from dataclasses import dataclass

from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.loaded import LoadedModel


@dataclass(frozen=True)
class Interface:
    """Sizes and names that a client must know.

    Args:
        frame_size: height and width of the frames that the model was trained on, px; None where nothing says it.
        proprio_names: one entry for each number of the raw proprioception; empty: the model takes none.
        needs_goal_proprio: whether the goal's proprioception changes the plan.
        action_names: one entry for each number of a raw env action.
        frameskip: env steps of a model step.
        horizon: model steps planned.
        execute_steps: model steps to execute before asking again.
        planner: its kind.
    """

    frame_size: tuple[int, int] | None
    proprio_names: tuple[str, ...]
    needs_goal_proprio: bool
    action_names: tuple[str, ...]
    frameskip: int
    horizon: int
    execute_steps: int
    planner: str

    @property
    def num_planned(self) -> int:
        """Env actions of a plan."""
        return self.horizon * self.frameskip

    @property
    def num_executed(self) -> int:
        """Env actions to execute before asking again."""
        return self.execute_steps * self.frameskip


def interface_of(model: LoadedModel, config: ExperimentConfig, horizon: int, execute_steps: int) -> Interface:
    """The interface of a model under a config that says how to plan.

    Raises:
        UserError: the model was trained without actions.
    """
    statistics = model.statistics
    if statistics.action is None:
        raise UserError("this model was trained without actions: it cannot plan")
    return Interface(
        frame_size=_frame_size(model, config),
        proprio_names=statistics.proprio_names if model.sees_proprio else (),
        needs_goal_proprio=model.goal_needs_proprio(config.plan.objective.alpha),
        action_names=statistics.action_names,
        frameskip=model.frameskip,
        horizon=horizon,
        execute_steps=execute_steps,
        planner=config.plan.planner.kind,
    )


def _frame_size(model: LoadedModel, config: ExperimentConfig) -> tuple[int, int] | None:
    known = model.facts.get("frame_size")
    if known is not None:
        height, width = known
        return height, width
    # Checkpoints of earlier versions: a run that planned was held to its world's frames, any other says nothing.
    side = config.plan.world.frame_size
    return (side, side) if config.evaluate.grid.goal_horizons else None
