"""Gradient descent on the actions, through the world model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.config.plan import GradientConfig
from wm.contracts import Dynamics, Objective
from wm.planning.anytime import at_iteration
from wm.planning.bounds import ActionBounds, within
from wm.planning.candidates import plan_cost
from wm.planning.noise import NoiseSource, draw_noise, standard_normal
from wm.planning.warm_start import known_actions
from wm.types import Plan, WarmStart

_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


class GradientPlanner:
    """Gradient descent with noise, plain or Adam's.

    a <- a - lr * d cost / d a + action_noise * noise, then moved within bounds where there are some. The last a is the plan, not
    the cheapest one.

    Args:
        config: steps, lr, optimizer and noise.
        action_dim: A F, one model action.
        zero_action: normalised action (A F,) that fills the steps a warm start does not know: the action that does
            nothing, (0 - mean) / std of each env step. None fills them with N(0, 1), as the reference does by default.
        chunk_size: most problems differentiated at once, which bounds memory; None: all.
        noise: where initial actions and the per-step noise come from, in this order.
        bounds: of normalised actions, or None.

    Source: DINO-WM (arXiv 2411.04983; planning/gd.py of its repository). Adam and bounds are additions.
    """

    def __init__(
        self,
        config: GradientConfig,
        action_dim: int,
        zero_action: Tensor | None = None,
        chunk_size: int | None = None,
        noise: NoiseSource = standard_normal,
        bounds: ActionBounds | None = None,
    ) -> None:
        self.config = config
        self.horizon = config.horizon
        self.action_dim = action_dim
        self.zero_action = zero_action
        self.chunk_size = chunk_size
        self.noise = noise
        self.bounds = bounds

    # Nothing made in inference mode can be differentiated: leave a caller's, and clone its tensors into ordinary ones.
    # Leaving it turns gradients on, too, where a caller had them off.
    @torch.inference_mode(False)
    def plan(
        self,
        dynamics: Dynamics,
        objective: Objective,
        context: Tensor,
        goal: Tensor,
        start: WarmStart | None,
        generators: Sequence[torch.Generator],
    ) -> Plan:
        """Plan from context (B, T, ...) to goal (B, 1, ...).

        Raises:
            UserError: a cost is no longer finite.
        """
        context, goal = context.detach().clone(), goal.detach().clone()
        actions = self._initial(start, generators, context)
        optimizer = _OPTIMIZERS[self.config.optimizer]([actions], lr=self.config.lr)
        trace: dict[str, list[Tensor]] = {"cost": [], "gradient_norm": []}
        for iteration in range(self.config.num_iterations):
            cheap = at_iteration(dynamics, iteration)
            cost, gradient = self._cost_and_gradient(cheap, objective, context, goal, actions.detach())
            self._check(cost, iteration)
            actions.grad = gradient
            optimizer.step()
            noise = draw_noise(self.noise, tuple(actions.shape[1:]), generators, context.device)
            actions += self.config.action_noise * noise
            if self.bounds is not None:
                actions.copy_(self.bounds.clamp(actions))
            trace["cost"].append(cost)
            trace["gradient_norm"].append(gradient.flatten(1).norm(dim=1))
        with torch.no_grad():
            cost = plan_cost(dynamics, objective, context, goal, actions, self.chunk_size)
        self._check(cost, self.config.num_iterations)
        return Plan(actions, cost, {name: torch.stack(values, dim=1) for name, values in trace.items()})

    def _cost_and_gradient(
        self, dynamics: Dynamics, objective: Objective, context: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B,) and (B, H, A F). A problem's gradient is its own cost's: costs are summed, not averaged."""
        parts = []
        for rows in torch.arange(len(actions), device=actions.device).split(self.chunk_size or len(actions)):
            variable = actions[rows].requires_grad_()
            cost = objective(dynamics.rollout(context[rows], variable), goal[rows])
            # Not backward(): the model's own .grad stays as it is.
            parts.append((cost.detach().float(), *torch.autograd.grad(cost.sum(), variable)))
        cost, gradient = (torch.cat(values) for values in zip(*parts, strict=True))
        return cost, gradient

    def _initial(self, start: WarmStart | None, generators: Sequence[torch.Generator], context: Tensor) -> Tensor:
        known = known_actions(start, len(context), self.horizon, self.action_dim, context.device)
        shape = (self.horizon - known.shape[1], self.action_dim)
        if self.zero_action is None:
            unknown = draw_noise(self.noise, shape, generators, context.device)
        else:
            unknown = self.zero_action.to(context.device, known.dtype).expand(len(context), *shape)
        return within(self.bounds, torch.cat([known, unknown], dim=1))

    def _check(self, cost: Tensor, iteration: int) -> None:
        wrong = cost[~cost.isfinite()]
        if len(wrong):
            hint = f"try a smaller planner.lr (now {self.config.lr})" if iteration else "the model returned NaN at once"
            raise UserError(f"gradient planner: the cost became {float(wrong[0])} after {iteration} steps: {hint}")
