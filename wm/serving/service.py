"""Plans of one model, from frame to frame."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wm.config.errors import UserError
from wm.contracts import Objective, Planner
from wm.loaded import LoadedModel
from wm.serving.deadline import Deadline, watched
from wm.serving.interface import Interface
from wm.serving.request import PlanRequest
from wm.types import WarmStart

FAR_STD = 5.0  # of the training actions' standard deviation: what a person should look at before a robot does it


class _Found(NamedTuple):
    """What one search found, in normalised units."""

    actions: Tensor  # (H, A F)
    cost: float
    cost_per_iteration: list[float]
    start_cost: float


class PlanService:
    """Answers one request at a time; whoever calls it sees to that.

    Args:
        model: in evaluation mode.
        planner, objective: over `model`.
        interface: what the model takes and gives.
    """

    def __init__(self, model: LoadedModel, planner: Planner, objective: Objective, interface: Interface) -> None:
        self.model = model
        self.planner = planner
        self.objective = objective
        self.interface = interface
        self._modules = [part for part in (model.model, model.encoder) if isinstance(part, nn.Module)]

    def check(self) -> None:
        """Encode a black frame, as each request will. Raises UserError when this encoder cannot."""
        height, width = self.interface.frame_size or (224, 224)
        self.model.dynamics.encode(self.model.observe(np.zeros((height, width, 3), np.uint8), None))

    def answer(self, request: PlanRequest, deadline: Deadline) -> dict[str, Any]:
        """A plan, as `response_schema` describes it.

        Raises:
            TimeoutError, CancelledError: the deadline's.
            UserError: the model's costs or actions are not finite, or memory is too small.
        """
        model = self.model
        try:
            with watched(self._modules, deadline):
                deadline.check()
                context = model.dynamics.encode(model.observe(request.start, request.proprio))
                goal = model.dynamics.encode(model.observe(request.goal, request.goal_proprio))
                rest = None if request.warm_start is None else model.model_actions(request.warm_start)
                began_s = time.perf_counter()
                found = self._search(context, goal, rest, request.seed)
                plan_s = time.perf_counter() - began_s
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise UserError(
                "not enough memory for this planner: start the server with a smaller plan.planner.num_samples"
            ) from error
        if not found.actions.isfinite().all():
            raise UserError(
                "the planner's actions are not finite: do not execute them; was the model's training finite?"
            )
        return {
            "actions": model.env_actions(found.actions).tolist(),
            "execute": self.interface.num_executed,
            "cost": _known(found.cost),
            "cost_per_iteration": [_known(cost) for cost in found.cost_per_iteration],
            "start_cost": _known(found.start_cost),
            "plan_s": plan_s,
            "seed": request.seed,
            "warnings": [*request.warnings, *self._warnings(found)],
        }

    def _search(self, context: Tensor, goal: Tensor, start: Tensor | None, seed: int) -> _Found:
        """The one place that calls the planner."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            start_cost = float(self.objective(context, goal)[0])
        guess = None if start is None else WarmStart(start[None])
        plan = self.planner.plan(self.model.dynamics, self.objective, context, goal, guess, [generator])
        curve = plan.trace["cost"][0].tolist() if "cost" in plan.trace else []
        return _Found(plan.actions[0], float(plan.cost[0]), curve, start_cost)

    def _warnings(self, found: _Found) -> list[str]:
        warnings = []
        if not math.isfinite(found.cost):
            warnings.append(f"cost: unknown; planner '{self.interface.planner}' did not ask the model")
        far = float(found.actions.abs().max())
        if far > FAR_STD:
            warnings.append(
                f"actions: one number is {far:.1f} standard deviations from the training actions' mean; clip to your robot's limits"
            )
        return warnings


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
