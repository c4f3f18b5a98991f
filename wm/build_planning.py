"""Config to planners: the planner, its objective, its bounds and what its actions pass through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
import torch

from wm.config.errors import UserError
from wm.config.limits import (
    CustomLimitConfig,
    DeltaLimitConfig,
    LimitConfig,
    PositionLimitConfig,
    VelocityLimitConfig,
)
from wm.config.plan import (
    CemConfig,
    GradientConfig,
    IcemConfig,
    MppiConfig,
    ObjectiveConfig,
    PlanConfig,
    PlannerConfig,
    RandomConfig,
)
from wm.config.target import call_target
from wm.contracts import Planner, World
from wm.evaluation.planning import PlanningEvaluation
from wm.loaded import LoadedModel
from wm.models.latent_model import LatentModel
from wm.planning.bounds import ActionBounds
from wm.planning.cem import CemPlanner
from wm.planning.gradient import GradientPlanner
from wm.planning.icem import IcemPlanner
from wm.planning.limits import ActionLimit, ActionLimits, DeltaLimit, PositionLimit, VelocityLimit
from wm.planning.mppi import MppiPlanner
from wm.planning.objective import LatentObjective
from wm.planning.random import RandomPlanner

# Of all windows together. A sample of the published predictor: 1.09 s at 600 tokens, 1.16 at 2,400, 1.23 at 9,400, 1.37 at 38,000.
# A small one (H 1, 36 patches): 3.7 ms at 36 tokens, 1.7 from 600 to 1,200, 1.6 at 2,300.
_CPU_TOKENS = 2048


def build_planner(
    config: PlannerConfig, model: LoadedModel, *, memory_gb: float = 1.0, bounds: ActionBounds | None = None
) -> Planner:
    """A planner over the model's actions.

    Args:
        memory_gb: of activations; what is rolled out at once is cut to it, and on a CPU to what its cache works well with.
        bounds: of normalised model actions.
    """
    action_dim = model.model.action_dim
    is_gradient = isinstance(config, GradientConfig)
    chunk_size = max(1, _plans_at_once(model, config.horizon, memory_gb, graph=is_gradient))
    match config:
        case CemConfig():
            return CemPlanner(config, action_dim, chunk_size, bounds=bounds)
        case IcemConfig():
            return IcemPlanner(config, action_dim, model.frameskip, chunk_size, bounds=bounds)
        case MppiConfig():
            return MppiPlanner(config, action_dim, chunk_size, bounds=bounds)
        case GradientConfig():
            still = model.model_actions(np.zeros((model.frameskip, action_dim // model.frameskip)))[0]
            zero_action = still if config.start == "zero" else None
            return GradientPlanner(config, action_dim, zero_action, chunk_size, bounds=bounds)
        case RandomConfig():
            return RandomPlanner(config, action_dim, bounds=bounds)
        case _:
            assert_never(config)


def _plans_at_once(model: LoadedModel, horizon: int, memory_gb: float, *, graph: bool) -> int:
    """As many as the memory holds; on a CPU no more than work well with its cache."""
    with model.model.sampled_in(max(model.sampling_steps) if model.sampling_steps else None):
        fitting = int(memory_gb * 1e9 / model.model.rollout_bytes(horizon, graph=graph))
    if next(model.model.parameters()).device.type != "cpu":
        return fitting
    return min(fitting, _CPU_TOKENS // (model.model.history_len * model.model.tokens_per_frame))


def build_objective(config: ObjectiveConfig, model: LatentModel) -> LatentObjective:
    """The planner's cost over a model's content. Raises UserError where the latent lacks what the config names."""
    if config.alpha > 0 and not model.keeps_proprio:
        raise UserError(
            f"plan.objective.alpha: {config.alpha:g}, but this model's latent keeps no proprio apart; say 0"
        )
    match config.space:
        case "full":
            return LatentObjective(config, lambda content: (model.visual(content), model.proprio(content)))
        case "aligned":
            if not model.is_aligned:
                raise UserError("plan.objective.space: aligned, but this variant aligns nothing; say full")
            return LatentObjective(config, lambda content: (model.aligned(content), model.proprio(content)))
        case "projected":
            if not model.is_projected:
                raise UserError("plan.objective.space: projected, but this variant has no projection; say full")
            return LatentObjective(config, lambda content: (model.visual(content).mean(dim=2), model.proprio(content)))
        case _:
            assert_never(config.space)


def action_bounds(plan: PlanConfig, model: LoadedModel, world: World | None = None) -> ActionBounds | None:
    """In normalised model actions; None: unbounded.

    Raises UserError for `bounds=world` without a world.
    """
    statistics = model.statistics.action
    if plan.bounds == "none" or statistics is None:
        return None
    if plan.bounds == "world":
        if world is None:
            raise UserError("plan.bounds: world, but no simulator is at hand here; say data or none")
        low, high = world.action_low, world.action_high
    elif statistics.low is None or statistics.high is None:
        return None  # the checkpoint does not say what its data held
    else:
        low, high = statistics.low, statistics.high
    # An entry that never changed is left a hair's breadth, so that low < high.
    margin = np.maximum(1e-6, 1e-6 * statistics.std)
    ends = (np.tile(statistics.normalize(end), model.frameskip) for end in (low - margin, high + margin))
    return ActionBounds(*(torch.from_numpy(np.asarray(end, np.float32)) for end in ends))


def build_limits(
    limits: Mapping[str, LimitConfig], action_names: Sequence[str], proprio_names: Sequence[str]
) -> ActionLimits:
    """Fresh counts each time. Raises UserError for names that the world lacks."""
    return ActionLimits(
        {name: _limit(config, action_names, proprio_names, f"plan.limits.{name}") for name, config in limits.items()}
    )


def _limit(config: LimitConfig, action_names: Sequence[str], proprio_names: Sequence[str], path: str) -> ActionLimit:
    match config:
        case VelocityLimitConfig():
            return VelocityLimit(config, action_names, path)
        case DeltaLimitConfig():
            return DeltaLimit(config, action_names, path)
        case PositionLimitConfig():
            return PositionLimit(config, action_names, proprio_names, path)
        case CustomLimitConfig():
            return call_target(config.target, f"{path}.target", config.config)
        case _:
            assert_never(config)


def planning_evaluation(
    plan: PlanConfig, model: LoadedModel, worlds: Sequence[World], *, memory_gb: float = 1.0
) -> PlanningEvaluation:
    """The evaluation in simulation that a config asks for.

    Args:
        worlds: one for each problem that is planned together with others.
    """
    world, model = worlds[0], model.planned_by(plan)
    build_limits(plan.limits, world.action_names, world.proprio_names)  # a wrong name is no failed problem
    return PlanningEvaluation(
        worlds,
        model,
        build_planner(plan.planner, model, memory_gb=memory_gb, bounds=action_bounds(plan, model, world)),
        build_objective(plan.objective, model.model),
        execute_steps=plan.steps_executed,
        max_iterations=plan.max_iterations,
        seed=plan.seed,
        limits=lambda: build_limits(plan.limits, world.action_names, world.proprio_names),
        legacy_success_stop=plan.legacy_success_stop,
    )
