"""Gradient descent on the actions, through the world model."""

from __future__ import annotations

import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.config.plan import GradientConfig
from wm.contracts import Dynamics, Objective
from wm.planning.candidates import plan_cost
from wm.planning.noise import NoiseSource, standard_normal
from wm.planning.warm_start import warm_start
from wm.types import Plan


class GradientPlanner:
    """Plain gradient descent with noise.

    a <- a - lr * d cost / d a + action_noise * noise. No clipping; the last a is the plan, not the cheapest one.

    Args:
        config: steps, lr and noise.
        action_dim: A F, one model action.
        zero_action: normalised action (A F,) that fills the steps a warm start does not know: the action that does
            nothing, (0 - mean) / std of each env step. None fills them with N(0, 1), as the reference does by default.
        noise: where initial actions and the per-step noise come from, in this order.

    Source: DINO-WM (arXiv 2411.04983; planning/gd.py of its repository).
    """

    def __init__(
        self,
        config: GradientConfig,
        action_dim: int,
        zero_action: Tensor | None = None,
        noise: NoiseSource = standard_normal,
    ) -> None:
        self.config = config
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.zero_action = zero_action
        self.noise = noise

    # Nothing made in inference mode can be differentiated: leave a caller's, and clone its tensors into ordinary ones.
    # Leaving it turns gradients on, too, where a caller had them off.
    @torch.inference_mode(False)
    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: Tensor | None,
        generator: torch.Generator,
    ) -> Plan:
        """Plan from context (1, T, ...) to goal (1, 1, ...).

        Raises:
            UserError: the cost is no longer finite.
        """
        context, goal = context.detach().clone(), goal.detach().clone()
        actions = self._initial(start, generator, context.device)
        trace: dict[str, list[float]] = {"cost": [], "gradient_norm": []}
        for iteration in range(self.config.num_iterations):
            actions.requires_grad_()
            cost = objective(dynamics.rollout(context, actions[None]), goal)[0]
            (gradient,) = torch.autograd.grad(cost, actions)  # not backward(): the model's own .grad stays as it is
            self._check(cost.item(), iteration)
            noise = self.noise(tuple(actions.shape), generator).to(context.device)
            actions = actions.detach() - self.config.lr * gradient + self.config.action_noise * noise
            trace["cost"].append(cost.item())
            trace["gradient_norm"].append(float(gradient.norm()))
        with torch.no_grad():
            cost = plan_cost(dynamics, objective, context, goal, actions)
        self._check(cost, self.config.num_iterations)
        return Plan(actions, cost, trace)

    def _initial(self, start: Tensor | None, generator: torch.Generator, device: torch.device) -> Tensor:
        known = warm_start(start, self.horizon, self.action_dim, device)
        num_unknown = self.horizon - len(known)
        if self.zero_action is None:
            unknown = self.noise((num_unknown, self.action_dim), generator)
        else:
            unknown = self.zero_action.expand(num_unknown, self.action_dim)
        return torch.cat([known, unknown.to(device=device, dtype=known.dtype)])

    def _check(self, cost: float, iteration: int) -> None:
        if not torch.isfinite(torch.tensor(cost)):
            hint = f"try a smaller planner.lr (now {self.config.lr})" if iteration else "the model returned NaN at once"
            raise UserError(f"gradient planner: the cost became {cost} after {iteration} steps: {hint}")
