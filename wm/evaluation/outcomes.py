"""What came of planning problems, and the metrics that they are summed up in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm.contracts import World
from wm.types import Problem


@dataclass(frozen=True)
class PlanOutcome:
    """What came of one problem.

    Args:
        success: the goal was met at the end of some executed plan (the reference's sticky rule).
        final_success: it was met at the very end.
        success_by_iteration: whether it had been met by the end of each MPC iteration.
        state_distance, initial_distance: in the world's units.
        plan_s: seconds of each plan; of problems planned together, an equal share.
        cost: final cost of each plan; cost_trace: per MPC iteration, cost per planner iteration.
        states: (T, S) every env step; actions: (T - 1, A) raw, as executed.
        failure: why the problem could not be completed, or None.
        latent_distance: the objective of what was seen at the end, against the goal.
        plans: per MPC iteration, the whole plan as raw env actions (H F, A), before limits.
        clamped: by limit, how many executed actions it changed.
        roughness: mean squared second difference of the executed actions, in standard deviations of the training actions.
        warnings: what a person should know about this problem.
    """

    problem: str
    success: bool
    final_success: bool
    success_by_iteration: list[bool]
    state_distance: float
    initial_distance: float
    plan_s: list[float]
    cost: list[float]
    cost_trace: list[list[float]]
    states: list[list[float]]
    actions: list[list[float]]
    failure: str | None = None
    latent_distance: float = float("nan")
    plans: list[list[list[float]]] = field(default_factory=list[list[list[float]]])
    clamped: Mapping[str, int] = field(default_factory=dict[str, int])
    roughness: float = float("nan")
    warnings: Sequence[str] = ()

    @staticmethod
    def failed(problem: Problem, reason: str) -> PlanOutcome:
        """A problem that counts as not solved, with its reason."""
        return PlanOutcome(problem.id, False, False, [], float("nan"), float("nan"), [], [], [], [], [], reason)


def roughness(actions: np.ndarray) -> float:
    """mean_t |a_{t+1} - 2 a_t + a_{t-1}|^2 per entry, of normalised env actions (T, A); NaN below three.

    0 for actions that change steadily, 6 for independent ones of variance 1.
    """
    return float(np.square(np.diff(actions, n=2, axis=0)).mean()) if len(actions) > 2 else float("nan")


_AVERAGED = ("state_distance", "initial_distance", "latent_distance", "roughness")


def planning_metrics(outcomes: Sequence[PlanOutcome], goal_horizon: int) -> dict[str, float]:
    """`plan/..._gh{h}`: success (sticky and final), by MPC iteration, distances, roughness, clamped actions, seconds a plan."""
    suffix = f"gh{goal_horizon}"
    metrics = {
        f"plan/success_rate_{suffix}": float(np.mean([o.success for o in outcomes])),
        f"plan/final_success_rate_{suffix}": float(np.mean([o.final_success for o in outcomes])),
        f"plan/failed_problems_{suffix}": float(sum(o.failure is not None for o in outcomes)),
    }
    done = [o for o in outcomes if o.failure is None]
    for name in _AVERAGED:
        known = [value for o in done if np.isfinite(value := getattr(o, name))]
        if known:
            metrics[f"plan/{name}_{suffix}"] = float(np.mean(known))
    for limit in sorted({name for o in done for name in o.clamped}):
        share = sum(o.clamped.get(limit, 0) for o in done) / max(1, sum(len(o.actions) for o in done))
        metrics[f"plan/clamped_{limit}_{suffix}"] = share
    if seconds := [s for o in done for s in o.plan_s]:
        metrics[f"plan/plan_s_{suffix}"] = float(np.mean(seconds))
    for number in range(max((len(o.success_by_iteration) for o in done), default=0)):
        reached = [o.success_by_iteration[min(number, len(o.success_by_iteration) - 1)] for o in done]
        metrics[f"plan/success_rate_{suffix}_mpc{number + 1}"] = float(np.sum(reached) / len(outcomes))
    return metrics


def outcome_frames(world: World, problem: Problem, states: Any) -> np.ndarray:
    """uint8 (T, H, W, 3) of a solved problem, rendered again from its states."""
    return replayed(world, problem, states)[0]


def replayed(world: World, problem: Problem, states: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Frames uint8 (T, H, W, 3) and raw proprioception (T times (Dp,)) at a problem's states (T, S)."""
    world.set_layout(problem.layout)
    frames, proprio = [], []
    for state in np.asarray(states):
        world.reset_to(state)
        frames.append(world.render())
        proprio.append(world.proprio.copy())
    return np.stack(frames), proprio
